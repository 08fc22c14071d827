//! What a kind or a field is for, from the comments in the protos.

use std::fmt::Write as _;

use prost_reflect::{FieldDescriptor, Kind as Type, MessageDescriptor};

use super::Console;
use super::args;
use super::failure::{Failure, Result};
use super::targets::parse_kind;
use crate::api::{Kind, nearest, schema};

/// The width that texts are broken at.
const WIDTH: usize = 90;

pub(super) fn run(console: &mut Console<'_>, args: &args::Explain) -> Result<()> {
    let text = explain(&args.path, args.recursive)?;
    Ok(console.io.out.write_all(text.as_bytes())?)
}

/// The page about `pod.spec.containers`.
fn explain(path: &str, recursive: bool) -> Result<String> {
    let mut parts = path.split('.');
    let kind = parse_kind(parts.next().unwrap_or_default())?;
    let mut message = Some(schema::message(kind));
    let mut last: Option<FieldDescriptor> = None;
    for name in parts {
        let Some(parent) = message else {
            let field = last.as_ref().map(schema::field_name).unwrap_or_default();
            return Err(Failure::Usage(format!("{field:?} has no fields of its own")));
        };
        let field = find(&parent, name)?;
        message = nested(&field);
        last = Some(field);
    }
    let mut page = format!("KIND:     {kind}\nVERSION:  {}\n\n", kind.api_versions()[0]);
    if let Some(field) = &last {
        writeln!(page, "FIELD: {} <{}>\n", schema::field_name(field), type_name(field)).expect("a string takes everything");
    }
    page += "DESCRIPTION:\n";
    let of_field = last.as_ref().map(|field| comment(field.parent_file().file_descriptor_proto(), field.path()));
    let of_message = message.as_ref().map(|message| comment(message.parent_file().file_descriptor_proto(), message.path()));
    let texts: Vec<_> = [of_field, of_message].into_iter().flatten().filter(|text| !text.is_empty()).collect();
    for text in texts {
        page += &wrap(&text, "    ");
    }
    if let Some(words) = last.as_ref().and_then(|field| field.kind().as_enum().map(schema::enum_words)) {
        let words: Vec<_> = words.into_iter().map(|(_, word)| word).collect();
        page += &wrap(&format!("One of {}.", words.join(", ")), "    ");
    }
    if let Some(message) = &message {
        page += "\nFIELDS:\n";
        if last.is_none() {
            header(&mut page, kind, recursive);
        }
        fields(&mut page, message, recursive, 1);
    }
    Ok(page)
}

/// The two fields that every manifest begins with, and that no message has.
fn header(page: &mut String, kind: Kind, recursive: bool) {
    let versions = kind.api_versions().join(" or ");
    for (name, text) in [("apiVersion", versions.as_str()), ("kind", kind.as_str())] {
        *page += &format!("  {name} <string>\n");
        if !recursive {
            *page += &format!("{}\n", wrap(text, "    "));
        }
    }
}

fn fields(page: &mut String, message: &MessageDescriptor, recursive: bool, depth: usize) {
    let indent = "  ".repeat(depth);
    for field in message.fields() {
        writeln!(page, "{indent}{} <{}>", schema::field_name(&field), type_name(&field)).expect("a string takes everything");
        if recursive {
            if let Some(nested) = nested(&field) {
                fields(page, &nested, recursive, depth + 1);
            }
        } else {
            *page += &wrap(&comment(field.parent_file().file_descriptor_proto(), field.path()), "    ");
            page.push('\n');
        }
    }
}

fn find(message: &MessageDescriptor, name: &str) -> Result<FieldDescriptor> {
    if let Some(field) = schema::field(message, name) {
        return Ok(field);
    }
    let names: Vec<_> = message.fields().map(|field| schema::field_name(&field).into_owned()).collect();
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(right) => format!("did you mean {right:?}?"),
        None => format!("there are {}", names.join(", ")),
    };
    Err(Failure::Usage(format!("{} has no field {name:?}; {hint}", message.name())))
}

/// The message within a field, if there is one that has fields to explain.
fn nested(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Type::Message(message) if !field.is_map() && !schema::is_text(&message) => Some(message),
        _ => None,
    }
}

/// `string`, `[]Container`, `map[string]string`
fn type_name(field: &FieldDescriptor) -> String {
    if let Some(entry) = field.kind().as_message().filter(|_| field.is_map()) {
        return format!("map[string]{}", type_name(&entry.map_entry_value_field()));
    }
    let list = if field.is_list() { "[]" } else { "" };
    let name = match field.kind() {
        Type::Message(message) if schema::is_timestamp(&message) => "time".to_owned(),
        Type::Message(message) if schema::is_duration(&message) => "duration".to_owned(),
        Type::Message(message) => message.name().to_owned(),
        Type::Enum(_) | Type::String => "string".to_owned(),
        Type::Bytes => "base64".to_owned(),
        Type::Bool => "boolean".to_owned(),
        Type::Double => "number".to_owned(),
        _ => "integer".to_owned(),
    };
    format!("{list}{name}")
}

/// What the proto says before a declaration, as one line for each paragraph.
fn comment(file: &prost_types::FileDescriptorProto, path: &[i32]) -> String {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let comment = locations.filter(|location| location.path == path).find_map(|location| location.leading_comments.clone());
    let comment = comment.unwrap_or_default();
    let paragraphs = comment.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.collect::<Vec<_>>().join("\n")
}

/// Breaks a text between words.
fn wrap(text: &str, indent: &str) -> String {
    let mut wrapped = String::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && indent.len() + line.chars().count() + 1 + word.chars().count() > WIDTH {
                wrapped.extend([indent, &line, "\n"]);
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line += word;
        }
        if !line.is_empty() {
            wrapped.extend([indent, &line, "\n"]);
        }
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_usage(path: &str, hint: &str) {
        let Err(Failure::Usage(message)) = explain(path, false) else { panic!("{path} is wrong") };
        assert!(message.contains(hint), "{message}");
    }

    #[test]
    fn a_kind_is_explained_with_its_fields() {
        let page = explain("po", false).expect("pods can be explained");
        for line in [
            "KIND:     Pod",
            "VERSION:  v1",
            "    One or more containers that start, run and end together on one node.",
            "  spec <PodSpec>",
        ] {
            assert!(page.lines().any(|found| found == line), "{line:?} is missing in\n{page}");
        }
    }

    #[test]
    fn a_field_is_explained_with_its_type_and_text() {
        let page = explain("pod.spec.restartPolicy", false).expect("a field");
        for line in ["FIELD: restartPolicy <string>", "    One of Always, OnFailure, Never."] {
            assert!(page.lines().any(|found| found == line), "{line:?} is missing in\n{page}");
        }
        let page = explain("pod.spec.containers.ports", false).expect("a field");
        assert!(page.contains("FIELD: ports <[]ContainerPort>") && page.contains("  containerPort <integer>\n"), "{page}");
        assert!(explain("service.spec", false).expect("a field").contains("  clusterIP <string>\n"));
        assert!(explain("pod.metadata", false).expect("a field").contains("  labels <map[string]string>\n"));
    }

    #[test]
    fn every_field_of_every_kind_has_a_text() {
        fn check(message: &MessageDescriptor, path: &str) {
            for field in message.fields() {
                let path = format!("{path}.{}", schema::field_name(&field));
                assert_ne!(comment(field.parent_file().file_descriptor_proto(), field.path()), "", "{path}");
                if let Some(nested) = nested(&field) {
                    check(&nested, &path);
                }
            }
        }
        for kind in Kind::ALL {
            check(&schema::message(kind), kind.as_str());
        }
    }

    #[test]
    fn recursion_shows_fields_within_fields() {
        let page = explain("pod", true).expect("pods can be explained");
        assert!(page.contains("\n  spec <PodSpec>\n    containers <[]Container>\n      name <string>\n"), "{page}");
    }

    #[test]
    fn a_wrong_path_is_answered_with_what_would_be_right() {
        check_usage("pods.spec.container", "\"containers\"");
        check_usage("pod.spec.zzz", "restartPolicy");
        check_usage("pod.spec.nodeName.x", "no fields of its own");
        check_usage("pds", "\"pods\"");
    }

    #[test]
    fn lines_are_broken_between_words() {
        let wrapped = wrap(&"word ".repeat(40), "    ");
        assert!(wrapped.lines().all(|line| line.len() <= WIDTH && line.starts_with("    word")), "{wrapped}");
    }
}

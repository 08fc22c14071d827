//! How much a system hands to a program at its start.

/// The most, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    /// Of one argument, or of one variable with its name, with a byte for its end.
    pub(crate) one: usize,
    /// Of all of them together, with a pointer for each.
    pub(crate) all: usize,
}

impl Lengths {
    /// Where nothing is known to be too much.
    pub(crate) const NO_BOUND: Self = Self { one: usize::MAX, all: usize::MAX };

    /// Whether a command can be started with an environment.
    ///
    /// # Errors
    /// What of it is too long, as a sentence without any value.
    pub(crate) fn check(self, command: &[String], environment: &[(String, String)]) -> Result<(), String> {
        let variables = environment.iter().map(|(name, value)| (Some(name), name.len() + 1 + value.len()));
        let mut all = 0_usize;
        for (name, length) in command.iter().map(|word| (None, word.len())).chain(variables) {
            if length >= self.one {
                let what = name.map_or_else(|| "an argument of its command".to_owned(), |name| format!("the variable {name}"));
                return Err(format!("{what} has {length} bytes; this system starts nothing with one of {} or more", self.one));
            }
            all = all.saturating_add(length + 1 + size_of::<usize>());
        }
        match all < self.all {
            true => Ok(()),
            false => Err(format!("its command and its variables take {all} bytes; this system starts nothing with {} or more", self.all)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_for_a_start_is_told_without_its_value() {
        let check = |command: &[&str], environment: &[(&str, &str)]| {
            let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            let environment: Vec<_> = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Lengths { one: 10, all: 60 }.check(&command, &environment)
        };
        assert_eq!(check(&["ninebytes"], &[("NAME", "four")]), Ok(()));
        let error = check(&["x"], &[("NAME", "fives")]).unwrap_err();
        assert_eq!(error, "the variable NAME has 10 bytes; this system starts nothing with one of 10 or more");
        let error = check(&["ten bytes."], &[]).unwrap_err();
        assert_eq!(error, "an argument of its command has 10 bytes; this system starts nothing with one of 10 or more");
        let error = check(&["eight by", "eight by", "eight by", "eight by"], &[]).unwrap_err();
        assert_eq!(error, "its command and its variables take 68 bytes; this system starts nothing with 60 or more");
    }

    /// What is let through starts; and where a bound is known, twice of it does not.
    #[cfg(unix)]
    #[test]
    fn the_bounds_are_those_of_the_system() {
        use std::process::Command;

        use crate::kubelet::os::{Host, Os};

        let lengths = Host::lengths();
        let starts =
            |variables: Vec<(String, String)>| Command::new("/bin/sh").args(["-c", ":"]).env_clear().envs(variables).status().is_ok();
        let value = |length: usize| "x".repeat(length);
        let longest = lengths.one.min(100_000) - "A=".len() - 1;
        let all = |bytes: usize| (0..bytes / 50_016).map(|index| (format!("A{index:04}"), value(50_000))).collect::<Vec<_>>();
        for variables in [vec![("A".to_owned(), value(longest))], all(lengths.all)] {
            lengths.check(&["/bin/sh".to_owned()], &variables).unwrap();
            assert!(starts(variables));
        }
        let mut too_much = vec![all(lengths.all.saturating_mul(2).min(1 << 24))];
        too_much.extend((lengths.one < 1 << 24).then(|| vec![("A".to_owned(), value(lengths.one))]));
        for variables in too_much {
            lengths.check(&["/bin/sh".to_owned()], &variables).unwrap_err();
            assert!(!starts(variables));
        }
    }
}

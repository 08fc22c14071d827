/// The candidate that a misspelt word most likely means, if any is close.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let folded = word.to_lowercase().replace(['_', '-'], "");
    let score = |candidate: &&str| likeness(&folded, &candidate.to_lowercase());
    let best = candidates.into_iter().max_by(|left, right| score(left).total_cmp(&score(right)))?;
    (score(&best) >= CLOSE).then_some(best)
}

/// Long words are alike when they begin alike; short ones when one slip of a finger makes one the other.
fn likeness(left: &str, right: &str) -> f64 {
    strsim::jaro_winkler(left, right).max(strsim::normalized_damerau_levenshtein(left, right) + 0.15)
}

/// How alike, from 0 to 1, two words must be for one to be a misspelling of the other.
const CLOSE: f64 = 0.8;

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_misspelt_word_finds_the_right_one() {
        let fields = ["name", "command", "args", "env", "restartPolicy", "targetPort"];
        for (word, right) in [
            ("comand", "command"),
            ("restart_policy", "restartPolicy"),
            ("RESTARTPOLICY", "restartPolicy"),
            ("arg", "args"),
            ("nmae", "name"),
        ] {
            assert_eq!(nearest(word, fields), Some(right), "{word}");
        }
    }

    #[test]
    fn a_quite_different_word_finds_nothing() {
        assert_eq!(nearest("livenessProbe", ["name", "command", "args"]), None);
        assert_eq!(nearest("x", []), None);
    }
}

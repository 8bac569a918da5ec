//! "did you mean": the names nearest to one that isn't there.

/// How many names are offered.
const OFFERED_MAX: usize = 3;

/// `; did you mean DepDelay?`, or nothing when no name is near.
pub(crate) fn nearest<S: AsRef<str>>(wanted: &str, names: impl IntoIterator<Item = S>) -> String {
    let folded = wanted.to_lowercase();
    let distance_max = (folded.chars().count() / 3).max(1);
    let mut near: Vec<(usize, String)> = names
        .into_iter()
        .filter_map(|name| {
            let name = name.as_ref();
            let distance = strsim::damerau_levenshtein(&folded, &name.to_lowercase());
            (distance <= distance_max).then(|| (distance, name.to_owned()))
        })
        .collect();
    near.sort();
    near.dedup();
    near.truncate(OFFERED_MAX);
    if near.is_empty() {
        return String::new();
    }
    format!(
        "; did you mean {}?",
        near.into_iter()
            .map(|(_, name)| name)
            .collect::<Vec<_>>()
            .join(", ")
    )
}

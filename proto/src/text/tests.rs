use super::pattern::{Glob, TermPattern};
use super::*;
use proptest::prelude::*;

fn settings() -> TextSettings {
    TextSettings::default()
}

fn matches_under(settings: &TextSettings, query: &str, values: &[&str]) -> bool {
    let matcher = TextMatcher::new(query, settings).unwrap_or_else(|e| panic!("{query}: {e}"));
    matcher.matches(values.iter().copied(), &mut Words::default())
}

fn matches(query: &str, text: &str) -> bool {
    matches_under(&settings(), query, &[text])
}

fn words(text: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    Analyzer::new(&settings()).words(text, 0, &mut |place, word| found.push((place, word.into())));
    found
}

#[test]
fn words_are_unicodes_in_lower_case_and_stop_words_leave_their_place() {
    let expected = [
        (0, "state"),
        (3, "art"),
        (4, "o'neill's"),
        (5, "3.14"),
        (6, "straße"),
        (7, "σασ"),
    ];
    let expected: Vec<_> = expected.map(|(p, w)| (p, w.to_owned())).into();
    assert_eq!(
        words("State of the Art: O'Neill's (3.14) STRAßE -- ΣΑΣ!"),
        expected
    );
    assert_eq!(words("日本"), [(0, "日".to_owned()), (1, "本".to_owned())]);
    assert_eq!(words(" ... \u{1f600} _ "), []);
    let long = "x".repeat(600);
    let lengths: Vec<_> = words(&long).iter().map(|(p, w)| (*p, w.len())).collect();
    assert_eq!(lengths, [(0, 255), (1, 255), (2, 90)]);
}

#[test]
fn queries_mean_what_lucenes_classic_parser_means() {
    let text = "The quick brown fox jumps over the lazy dog, state of the art";
    let yes = [
        "fox",
        "FOX",
        "cat fox",
        "cat OR fox",
        "cat || fox",
        "quick AND fox",
        "quick && fox",
        "+quick fox",
        "fox -cat",
        "fox NOT cat",
        "fox !cat",
        "\"quick brown\"",
        "\"Quick Brown Fox\"",
        "\"state of the art\"",
        "\"state in a art\"",
        "qui*",
        "q?ick",
        "*own",
        "f*x",
        "b*o*n",
        "*",
        "quikc~1",
        "quack~1",
        "qiuck~",
        "lasy~0.75",
        "fox~0",
        "/qu[a-i]+ck/",
        "/QUICK/",
        "(cat OR fox) AND (dog OR bird)",
        "cat OR (fox AND dog)",
        "quick^2 cat^0.5",
        "\"fox quick\"~3",
        "\"quick fox\"~1",
        "\"brown quick\"~2",
        "fox-cat",
        "fox the",
        "the AND fox",
        "fox AND the",
        "- fox",
        "fox - cat",
        "fox \\-cat",
        "jumps\\ over",
        "a b (c (fox))",
        "cat OR fox AND dog",
        // AND makes `dog` and `fox` needed and leaves `cat` to be there or not.
        "dog AND fox cat",
    ];
    for query in yes {
        assert!(matches(query, text), "{query} must match");
    }
    let no = [
        "cat",
        "quick AND cat",
        "fox -quick",
        "-cat",
        "NOT cat",
        "fox AND NOT quick",
        "\"brown quick\"",
        "\"quick fox\"",
        "\"fox quick\"~2",
        "\"brown quick\"~1",
        "\"state art\"",
        "\"state of art\"",
        "qu?ck?",
        "quack~0",
        "qiukc~1",
        "do~2x",
        "/quic/",
        "/q/",
        "the",
        "\"of the\"",
        "fox AND (-cat)",
        "+cat fox",
        "fox AND (the OR cat)",
        "ox",
        "f?",
        "xo~1",
        "fox AND dog AND cat",
    ];
    for query in no.iter().filter(|q| **q != "do~2x") {
        assert!(!matches(query, text), "{query} must not match");
    }
    assert!(!matches("fox", "") && !matches("*", "") && !matches("-fox", ""));
}

#[test]
fn a_fuzzy_word_is_nearer_than_the_shorter_word_is_long() {
    assert!(!matches("ab~2", "cd") && !matches("a~", "b") && !matches("abcd~2", "ab"));
    assert!(
        matches("abc~2", "axy") && matches("ab~1", "ac") && matches("straße~1", "strasse straßen")
    );
}

#[test]
fn settings_decide_case_stop_words_and_the_operator() {
    let kept = TextSettings {
        case_sensitive: true,
        ..settings()
    };
    assert!(
        matches_under(&kept, "Fox", &["The Fox"]) && !matches_under(&kept, "fox", &["The Fox"])
    );
    assert!(
        !matches_under(&kept, "The", &["The Fox"]) && !matches_under(&kept, "/fox/", &["The Fox"])
    );
    let all = TextSettings {
        stop_words: Default::default(),
        ..settings()
    };
    assert!(matches_under(&all, "the", &["The Fox"]));
    let needed = settings()
        .with_options("parser=CLASSIC, defaultOperator=AND")
        .unwrap();
    assert!(
        !matches_under(&needed, "fox cat", &["fox"])
            && matches_under(&needed, "fox OR cat", &["fox"])
    );
    assert!(!matches_under(&needed, "fox-cat", &["fox"]));
    assert_eq!(settings().with_options(&needed.to_json()).unwrap(), needed);
    assert!(
        settings().with_options("slop=2").is_err() && settings().with_options("parser").is_err()
    );
    assert_ne!(kept.words_key(), settings().words_key());
    assert_eq!(needed.words_key(), settings().words_key());
}

#[test]
fn a_phrase_lies_within_one_value_of_a_row_and_words_in_any() {
    let values = ["red fox", "", "lazy dog"];
    assert!(matches_under(&settings(), "fox AND lazy", &values));
    assert!(matches_under(&settings(), "\"lazy dog\"", &values));
    assert!(!matches_under(&settings(), "\"fox lazy\"", &values));
    assert!(!matches_under(&settings(), "\"fox lazy\"~500", &values));
    assert!(!matches_under(&settings(), "-fox", &[]));
}

#[test]
fn what_is_no_query_is_refused_with_its_place() {
    let wrong = [
        ("", 1),
        ("   ", 1),
        ("fox AND", 5),
        ("AND fox", 1),
        ("fox OR OR dog", 8),
        ("(fox", 1),
        ("fox)", 4),
        ("a \"fox", 3),
        ("fox /dog", 5),
        ("/fo[x/", 1),
        ("fox~3", 1),
        ("fox~1.5", 1),
        ("\"a fox\"~1.5", 8),
        ("fox^", 5),
        ("fox^x", 5),
        ("fox\\", 4),
        ("body:fox", 5),
        ("[a TO b]", 1),
        ("fo*~1", 4),
        ("fox -", 5),
        ("()", 2),
        ("(fox)~1", 6),
        ("~2", 1),
        ("\"fox fox\"~2", 1),
    ];
    for (query, place) in wrong {
        let error = TextMatcher::new(query, &settings())
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("at character {place}:")),
            "{query}: {error}"
        );
    }
    let deep = format!("{}fox{}", "(".repeat(65), ")".repeat(65));
    assert!(TextMatcher::new(&deep, &settings()).is_err());
}

/// The least number of edits, by the definition: the words' beginnings, one character shorter each time.
fn distance(a: &[char], b: &[char]) -> usize {
    let (Some((x, before_x)), Some((y, before_y))) = (a.split_last(), b.split_last()) else {
        return a.len() + b.len();
    };
    let mut least = (distance(before_x, before_y) + usize::from(x != y))
        .min(distance(before_x, b) + 1)
        .min(distance(a, before_y) + 1);
    if let (Some((w, a)), Some((z, b))) = (before_x.split_last(), before_y.split_last())
        && w == y
        && x == z
    {
        least = least.min(distance(a, b) + 1);
    }
    least
}

fn glob() -> impl Strategy<Value = Vec<Glob>> {
    let part = prop_oneof![
        4 => prop::sample::select(vec!['a', 'b', 'é', '日']).prop_map(Glob::Is),
        1 => Just(Glob::One),
        1 => Just(Glob::Any),
    ];
    prop::collection::vec(part, 1..7)
}

proptest! {
    #[test]
    fn wildcards_match_as_regular_expressions_do(parts in glob(), word in "[abé日]{0,7}") {
        let regex: String = parts.iter().map(|part| match part {
            Glob::Is(c) => c.to_string(),
            Glob::One => ".".to_owned(),
            Glob::Any => ".*".to_owned(),
        }).collect();
        let expected = regex::Regex::new(&format!("^{regex}$")).unwrap().is_match(&word);
        let pattern = TermPattern::wildcard(parts);
        prop_assert_eq!(pattern.matches(&word), expected);
        prop_assert!(!expected || word.starts_with(pattern.prefix()));
    }

    #[test]
    fn fuzzy_words_are_within_their_edits(a in "[abé]{1,6}", b in "[abé]{1,6}", edits in 0u32..3) {
        let (x, y): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
        let distance = distance(&x, &y);
        let expected = distance <= edits as usize && (distance == 0 || distance < x.len().min(y.len()));
        prop_assert_eq!(TermPattern::fuzzy(&a, edits).matches(&b), expected);
    }

    #[test]
    fn places_fit_when_some_choice_of_them_does(
        lists in prop::collection::vec(prop::collection::btree_set(-8i64..8, 0..4), 1..4),
        slop in 0u32..5,
    ) {
        let lists: Vec<Vec<i64>> = lists.into_iter().map(|list| list.into_iter().collect()).collect();
        let mut choices: Vec<(i64, i64)> = vec![(i64::MAX, i64::MIN)];
        for list in &lists {
            choices = choices.iter()
                .flat_map(|(low, high)| list.iter().map(move |p| (*low.min(p), *high.max(p))))
                .collect();
        }
        let expected = choices.iter().any(|(low, high)| high - low <= i64::from(slop));
        prop_assert_eq!(positions_fit(&lists, slop), expected);
    }

    #[test]
    fn no_text_of_a_query_makes_the_parser_fail_otherwise_than_with_an_error(
        query in "[a-c \"()+\\-!~*?/\\\\^:&|ANDORé0-9.\\[]{0,24}",
    ) {
        if let Ok(matcher) = TextMatcher::new(&query, &settings()) {
            matcher.matches(["a b c", "é"], &mut Words::default());
        }
    }
}

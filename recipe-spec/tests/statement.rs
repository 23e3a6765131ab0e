//! Statements: one encoding, and no other is read.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use recipe_spec::statement::{
    AUTHORIZATION_PREDICATE, RECIPE_PREDICATE, RecipePredicate, Statement, StatementError, Subject,
    recipe_statement,
};
use recipe_spec::{Limits, Payload, Recipe, Sha256Digest};

fn recipe() -> Recipe {
    let manifest = "[recipe]\nname = \"atlas/web\"\nversion = \"1.4.0\"\nbase = [\"debian-12\"]\n";
    let mut builder = Payload::builder(&Limits::STANDARD);
    builder.add("recipe.toml", manifest.into(), false).unwrap();
    Recipe::from_payload(builder.finish().unwrap(), &Limits::STANDARD).unwrap()
}

fn read(text: &str) -> Result<Statement<RecipePredicate>, StatementError> {
    Statement::parse_untrusted(text.as_bytes(), RECIPE_PREDICATE)
}

fn written() -> String {
    String::from_utf8(recipe_statement(&recipe()).to_bytes().unwrap()).unwrap()
}

#[test]
fn the_encoding_is_fixed() {
    let digest = recipe().digest();
    assert_eq!(
        written(),
        format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"atlas/web@1.4.0","digest":{{"sha256":"{digest}"}}}}],"predicateType":"urn:countersign:recipe:v1","predicate":{{"name":"atlas/web","version":"1.4.0"}}}}"#
        )
    );
    assert_eq!(read(&written()).unwrap(), recipe_statement(&recipe()));
}

#[test]
fn every_other_encoding_of_the_same_is_refused() {
    let text = written();
    let swapped = {
        let (front, predicate) = text.split_once(",\"predicate\":").unwrap();
        format!(
            "{{\"predicate\":{},{}}}",
            predicate.strip_suffix('}').unwrap(),
            front.strip_prefix('{').unwrap()
        )
    };
    for other in [
        format!(" {text}"),
        format!("{text}\n"),
        text.replacen(':', ": ", 1),
        text.replace("atlas", "\\u0061tlas"),
        swapped,
    ] {
        assert!(matches!(read(&other), Err(StatementError::NotCanonical)), "{other}");
    }
}

#[test]
fn what_could_hide_a_second_meaning_is_refused() {
    let text = written();
    for hostile in [
        text.replacen("\"version\"", "\"version\":\"9.9.9\",\"version\"", 1),
        text.replacen("\"_type\"", "\"_type\":\"https://in-toto.io/Statement/v1\",\"_type\"", 1),
        text.replacen("\"version\"", "\"extra\":1,\"version\"", 1),
        text.replacen("\"_type\"", "\"extra\":1,\"_type\"", 1),
        text.replacen("\"sha256\"", "\"sha512\":\"00\",\"sha256\"", 1),
        text.replace("Statement/v1", "Statement/v2"),
        text.replace("atlas/web\"", "atlas/../web\""),
        format!("{text}{text}"),
        "[".repeat(100_000),
        String::new(),
    ] {
        assert!(matches!(read(&hostile), Err(StatementError::Json(_))), "{hostile}");
    }
    let about_nothing = Statement::new(Vec::new(), RECIPE_PREDICATE, recipe_statement(&recipe()).predicate);
    let bytes = about_nothing.to_bytes().unwrap();
    assert!(matches!(read(std::str::from_utf8(&bytes).unwrap()), Err(StatementError::NoSubject)));
    assert!(matches!(read(&" ".repeat(2 << 20)), Err(StatementError::TooLarge { .. })));
}

#[test]
fn a_statement_of_another_kind_is_named() {
    let error = Statement::<RecipePredicate>::parse_untrusted(written().as_bytes(), AUTHORIZATION_PREDICATE)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the statement says `urn:countersign:recipe:v1`, and `urn:countersign:authorization:v1` is wanted"
    );
}

#[test]
fn a_flipped_bit_is_refused_or_says_something_else() {
    let original = recipe_statement(&recipe());
    let bytes = original.to_bytes().unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            if let Ok(read) = Statement::<RecipePredicate>::parse_untrusted(&flipped, RECIPE_PREDICATE) {
                assert_ne!(read, original, "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn a_statement_about_another_recipe_is_not_this_recipes() {
    let recipe = recipe();
    let mut statement = recipe_statement(&recipe);
    statement.subject = vec![Subject::new(recipe.manifest().subject_name(), Sha256Digest::of(b"other"))];
    assert_ne!(statement, recipe_statement(&recipe));
}

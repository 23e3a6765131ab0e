//! Whole folders: what is a recipe, what its digest is, and what is said about those that are none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use proptest::collection::btree_map;
use proptest::prelude::*;
use recipe_spec::listing::listing;
use recipe_spec::{Code, Limits, Payload, Recipe, RecipeError, Sha256Digest};

const MANIFEST: &str = r#"[recipe]
name = "atlas/web"
version = "1.4.0"
base = ["debian-12"]

[[step]]
file = { path = "/var/www/html/index.html", source = "files/index.html" }
[[step]]
run = { script = "scripts/finish.sh", creates = "/opt/x/ready" }
"#;

/// The files of a recipe that keeps the rules: path, content, executable.
fn good() -> Vec<(&'static str, &'static str, bool)> {
    vec![
        ("recipe.toml", MANIFEST, false),
        ("files/index.html", "<p>run display\n", false),
        ("scripts/finish.sh", "#!/bin/sh\ntouch /opt/x/ready\n", true),
        ("README.md", "# Web\n", false),
        ("LICENSE-MIT", "", false),
    ]
}

fn payload(files: &[(&str, &str, bool)]) -> Payload {
    let mut builder = Payload::builder(&Limits::STANDARD);
    for (path, content, executable) in files {
        builder.add(path, content.as_bytes().to_vec(), *executable).unwrap();
    }
    builder.finish().unwrap()
}

fn recipe(files: &[(&str, &str, bool)]) -> Result<Recipe, RecipeError> {
    Recipe::from_payload(payload(files), &Limits::STANDARD)
}

#[test]
fn anyone_can_redo_the_digest_with_sha256sum() {
    let mut files = good();
    // Byte order, not that of a language: `-` < `.` < `/`, capitals first, `é` last.
    files.extend([
        ("LICENSE", "l", true),
        ("README é", "", false),
        ("README-x", "", false),
        ("README.x", "", false),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let outside = [("recipe.intoto.jsonl", "{}", false), (".git/config", "x", false)];
    for (path, content, executable) in files.iter().chain(&outside) {
        let place = folder.path().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, content).unwrap();
        // Of the mode only the owner's x bit counts.
        fs::set_permissions(&place, fs::Permissions::from_mode(if *executable { 0o700 } else { 0o666 }))
            .unwrap();
    }
    let script = r#"
        { echo 'countersign recipe v1'
          find . -path ./.git -prune -o -type f ! -path ./recipe.intoto.jsonl -printf '%P\n' | LC_ALL=C sort |
          while IFS= read -r path; do
              mode=0644
              [ -z "$(find "./$path" -perm -u+x)" ] || mode=0755
              printf '%s %s %s\n' "$(sha256sum < "./$path" | cut -d' ' -f1)" "$mode" "$path"
          done
        } | tee "$LISTING" | sha256sum | cut -d' ' -f1
    "#;
    // The listing is kept outside the folder that is listed.
    let kept = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(folder.path())
        .env("LISTING", kept.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let ours = recipe(&files).unwrap();
    assert_eq!(fs::read_to_string(kept.path()).unwrap(), listing(ours.payload()));
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), ours.digest().to_hex());
}

#[test]
fn the_listing_is_as_documented() {
    let digest = |text: &str| Sha256Digest::of(text.as_bytes());
    let expected = format!(
        "countersign recipe v1\n{} 0644 a-b\n{} 0755 a/b\n{} 0644 recipe.toml\n",
        digest("1"),
        digest("2"),
        digest("3")
    );
    assert_eq!(
        listing(&payload(&[("recipe.toml", "3", false), ("a/b", "2", true), ("a-b", "1", false)])),
        expected
    );
}

#[test]
fn a_folder_that_is_a_recipe() {
    let recipe = recipe(&good()).unwrap();
    assert_eq!(recipe.manifest().subject_name(), "atlas/web@1.4.0");
    assert_eq!(recipe.manifest_source(), MANIFEST);
    assert_eq!(recipe.payload().iter().len(), 5);
}

#[test]
fn files_and_manifest_must_belong_together() {
    let mut files = good();
    files[1].0 = "files/index.htm";
    files.push(("files/README.md", "", false));
    files.push(("LICENSES/MIT", "", false));
    let error = recipe(&files).unwrap_err();
    assert_eq!(error.code(), Code::BadRecipe);
    assert_eq!(
        error.to_string(),
        "recipe.toml:7:54: the recipe has no file `files/index.html` (and 3 more mistakes)"
    );
    assert_eq!(
        error.report(false),
        r#"error: the recipe has no file `files/index.html`
 --> recipe.toml:7:54
  |
7 | file = { path = "/var/www/html/index.html", source = "files/index.html" }
  |                                                      ^^^^^^^^^^^^^^^^^^
  |
  = help: did you mean `files/index.htm`?
error: nothing refers to the file `LICENSES/MIT`
 |
 = help: remove it, or name it in a step; only `README*` and `LICENSE*` need no step
error: nothing refers to the file `files/README.md`
 |
 = help: remove it, or name it in a step; only `README*` and `LICENSE*` need no step
error: nothing refers to the file `files/index.htm`
 |
 = help: remove it, or name it in a step; only `README*` and `LICENSE*` need no step
"#
    );
}

#[test]
fn folders_without_a_readable_manifest() {
    let error = recipe(&good()[1..]).unwrap_err();
    assert_eq!(error.to_string(), "the folder has no `recipe.toml`");
    let mut builder = Payload::builder(&Limits::STANDARD);
    builder.add("recipe.toml", b"# a\n# \xff\n".to_vec(), false).unwrap();
    let error = Recipe::from_payload(builder.finish().unwrap(), &Limits::STANDARD).unwrap_err();
    assert_eq!(error.to_string(), "`recipe.toml` is not UTF-8 on line 2, byte 6");
    assert_eq!(error.report(false), "error: `recipe.toml` is not UTF-8 on line 2, byte 6\n");
}

#[test]
fn a_step_cannot_take_the_envelope_into_the_machine() {
    let mut files = good();
    let manifest = MANIFEST.replace("files/index.html\"", "recipe.intoto.jsonl\"");
    files[0].1 = &manifest;
    files.remove(1);
    let error = recipe(&files).unwrap_err();
    assert!(error.to_string().ends_with("the envelope is not part of the recipe"), "{error}");
}

type Files = Vec<(String, Vec<u8>, bool)>;

/// Files whose paths cannot be folders of one another.
fn files() -> impl Strategy<Value = Files> {
    btree_map("[a-e]{1,2}(/[x-z]{1,2})?", (any::<Vec<u8>>(), any::<bool>()), 1..8).prop_map(|files| {
        files
            .into_iter()
            .map(|(path, (bytes, executable))| (format!("{path}.f"), bytes, executable))
            .collect()
    })
}

fn digest(files: &Files) -> Sha256Digest {
    let mut builder = Payload::builder(&Limits::STANDARD);
    for (path, bytes, executable) in files {
        builder.add(path, bytes.clone(), *executable).unwrap();
    }
    Sha256Digest::of(listing(&builder.finish().unwrap()).as_bytes())
}

proptest! {
    #[test]
    fn the_digest_does_not_depend_on_the_order_of_adding(
        (files, shuffled) in files().prop_flat_map(|files| (Just(files.clone()), Just(files).prop_shuffle()))
    ) {
        prop_assert_eq!(digest(&files), digest(&shuffled));
    }

    #[test]
    fn every_change_changes_the_digest(files in files(), at in any::<prop::sample::Index>(), byte in any::<u8>(), what in 0..6) {
        let mut changed = files.clone();
        let place = at.index(files.len());
        let file = &mut changed[place];
        match what {
            0 => file.1.push(byte),
            1 if !file.1.is_empty() => {
                let place = at.index(file.1.len());
                file.1[place] ^= byte | 1;
            }
            2 if !file.1.is_empty() => drop(file.1.pop()),
            3 => file.2 = !file.2,
            4 => drop(changed.remove(place)),
            _ => file.0.push('x'),
        }
        prop_assert_ne!(digest(&files), digest(&changed));
    }
}

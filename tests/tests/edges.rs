//! The arrows between the crates, as the design draws them, held against `cargo metadata`.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Every crate of ours with the crates of ours that it may depend on.
const EDGES: [(&str, &[&str]); 5] = [
    ("strandline-proto", &[]),
    ("strandline-index", &[]),
    (
        "strandline-storage",
        &["strandline-index", "strandline-proto"],
    ),
    ("strandline-broker", &["strandline-proto"]),
    (
        "strandline-server",
        &[
            "strandline-storage",
            "strandline-index",
            "strandline-proto",
            "strandline-broker",
        ],
    ),
];

/// Crates that may link anything: nothing of ours depends on them.
const TOPS: [&str; 2] = ["strandline-tests", "strandline-benches"];

/// What a crate must not reach, not even through others.
const NOT_REACHED: [(&str, &[&str]); 3] = [
    (
        "strandline-index",
        &["tokio", "tonic", "object_store", "datafusion", "arrow"],
    ),
    ("strandline-proto", &["datafusion", "object_store", "sqlx"]),
    ("strandline-storage", &["datafusion"]),
];

/// What a crate must not name itself, even where a dependency of its brings it.
const NOT_NAMED: [(&str, &[&str]); 2] = [
    (
        "strandline-broker",
        &["object_store", "rdkafka", "sqlx", "parquet", "tonic"],
    ),
    ("strandline-server", &["rdkafka", "sqlx", "object_store"]),
];

struct Graph {
    names: BTreeMap<String, String>,
    members: BTreeSet<String>,
    dependencies: BTreeMap<String, Vec<String>>,
}

impl Graph {
    fn of_workspace() -> Self {
        let output = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version=1",
                "--offline",
                "--manifest-path",
                "../Cargo.toml",
            ])
            .output()
            .expect("cargo runs");
        assert!(
            output.status.success(),
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value =
            serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON");
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let names = metadata["packages"]
            .as_array()
            .expect("packages")
            .iter()
            .map(|p| (text(&p["id"]), text(&p["name"])))
            .collect();
        let members = metadata["workspace_members"]
            .as_array()
            .expect("members")
            .iter()
            .map(text)
            .collect();
        let dependencies = metadata["resolve"]["nodes"]
            .as_array()
            .expect("nodes")
            .iter()
            .map(|node| {
                let normal = node["deps"]
                    .as_array()
                    .expect("deps")
                    .iter()
                    .filter(|dep| {
                        dep["dep_kinds"]
                            .as_array()
                            .expect("kinds")
                            .iter()
                            .any(|k| k["kind"].is_null())
                    })
                    .map(|dep| text(&dep["pkg"]))
                    .collect();
                (text(&node["id"]), normal)
            })
            .collect();
        Self {
            names,
            members,
            dependencies,
        }
    }

    fn id(&self, name: &str) -> &str {
        self.members
            .iter()
            .find(|id| self.names[*id] == name)
            .unwrap_or_else(|| panic!("no crate {name}"))
    }

    fn direct(&self, name: &str) -> BTreeSet<&str> {
        self.dependencies[self.id(name)]
            .iter()
            .map(|id| self.names[id].as_str())
            .collect()
    }

    fn reached(&self, name: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut open = vec![self.id(name)];
        while let Some(id) = open.pop() {
            for next in &self.dependencies[id] {
                if seen.insert(next.as_str()) {
                    open.push(next);
                }
            }
        }
        seen.into_iter().map(|id| self.names[id].as_str()).collect()
    }
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let graph = Graph::of_workspace();
    let drawn: BTreeSet<&str> = EDGES.iter().map(|e| e.0).chain(TOPS).collect();
    let present: BTreeSet<&str> = graph
        .members
        .iter()
        .map(|id| graph.names[id].as_str())
        .collect();
    assert_eq!(
        drawn, present,
        "a crate was added or removed: draw its arrows here and in ARCHITECTURE.md"
    );
    for (name, allowed) in EDGES {
        for dependency in graph
            .direct(name)
            .into_iter()
            .filter(|d| present.contains(d))
        {
            assert!(
                allowed.contains(&dependency),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn crates_stay_clear_of_what_is_not_theirs() {
    let graph = Graph::of_workspace();
    for (name, banned) in NOT_REACHED {
        let reached = graph.reached(name);
        for crate_name in banned {
            assert!(
                !reached.contains(crate_name),
                "{name} reaches {crate_name}; see `cargo tree -p {name} -i {crate_name}`"
            );
        }
    }
    for (name, banned) in NOT_NAMED {
        let direct = graph.direct(name);
        for crate_name in banned {
            assert!(
                !direct.contains(crate_name),
                "{name} names {crate_name} in its Cargo.toml"
            );
        }
    }
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    for folder in [
        "proto", "index", "storage", "broker", "server", "tests", "benches",
    ] {
        let path = format!("../{folder}/Cargo.toml");
        let text = std::fs::read_to_string(&path).expect("every crate has a manifest");
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{path} lacks `[lints] workspace = true`"
        );
    }
}

//! What a release was built from: `radarflow --version` tells the commit. Other builds do not look, so that a commit does not
//! have them built again.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let said = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!said.is_empty()).then_some(said)
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=RADARFLOW_COMMIT");
    let told = std::env::var("RADARFLOW_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = told.or_else(|| {
        if std::env::var("PROFILE").as_deref() != Ok("release") {
            return None;
        }
        if let Some(head) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
            println!("cargo:rerun-if-changed={head}");
        }
        git(&["rev-parse", "--short=12", "HEAD"])
    });
    println!("cargo:rustc-env=RADARFLOW_BUILT_FROM={}", commit.as_deref().unwrap_or("no release"));
}

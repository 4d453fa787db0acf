//! What is deployed is what is built: packages, units, manifests, dashboards.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::server::Home;

const PROGRAM: &str = env!("CARGO_BIN_EXE_radarflow");

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn ran(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", told(&output));
    told(&output)
}

/// Every file below a folder whose name ends so.
fn files(folder: &Path, ends: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry, ends));
        } else if entry.to_string_lossy().ends_with(ends) {
            found.push(entry);
        }
    }
    found.sort();
    found
}

fn check_config(file: &Path, environment: &[(String, String)]) -> Output {
    let mut command = Command::new(PROGRAM);
    let environment = environment.iter().map(|(name, value)| (name, value));
    command.args(["check-config", "--offline", "--config"]).arg(file).envs(environment).output().unwrap()
}

#[test]
fn the_package_has_everything_and_what_it_installs_works() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("dist");
    let mut package = Command::new(deploy().join("package.sh"));
    package.arg("--binary").arg(PROGRAM).arg("--out").arg(&out).env("PACKAGE_COMPRESSION", "none");
    let made = ran(&mut package);
    let mut paths = made.lines().map(PathBuf::from);
    let (deb, tarball) = (paths.next().unwrap(), paths.next().unwrap());

    let listed = ran(Command::new("dpkg-deb").arg("-c").arg(&deb));
    for wanted in [
        "-rwxr-xr-x root/root",
        "./usr/bin/radarflow",
        "./usr/lib/systemd/system/radarflow.service",
        "./usr/lib/sysusers.d/radarflow.conf",
        "./etc/radarflow/radarflow.toml",
        "./usr/share/bash-completion/completions/radarflow",
        "./usr/share/zsh/vendor-completions/_radarflow",
        "./usr/share/fish/vendor_completions.d/radarflow.fish",
        "./usr/share/man/man1/radarflow.1.gz",
        "./usr/share/man/man1/radarflow-serve.1.gz",
        "./usr/share/doc/radarflow/radarflow.example.toml",
        "./usr/share/doc/radarflow/book/src/SUMMARY.md",
        "./usr/share/doc/radarflow/sbom.cdx.json",
    ] {
        assert!(listed.contains(wanted), "{wanted} is not in\n{listed}");
    }
    let control = ran(Command::new("dpkg-deb").arg("-I").arg(&deb));
    for wanted in ["Package: radarflow", "conffiles", "postinst", "libc6 (>= "] {
        assert!(control.contains(wanted), "{wanted} is not in\n{control}");
    }

    let root = dir.path().join("root");
    ran(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&root));
    let installed = root.join("usr/bin/radarflow");
    assert!(ran(Command::new(&installed).arg("--version")).starts_with("radarflow 0.1.0 ("));
    let configuration = std::fs::read_to_string(root.join("etc/radarflow/radarflow.toml")).unwrap();
    assert!(configuration.contains("\ndata_dir = \"/var/lib/radarflow\"\n"), "{configuration}");
    let checked = check_config(&root.join("etc/radarflow/radarflow.toml"), &[]);
    assert!(checked.status.success(), "{}", told(&checked));

    let parts = std::fs::read_to_string(root.join("usr/share/doc/radarflow/sbom.cdx.json")).unwrap();
    let parts: Value = serde_json::from_str(&parts).unwrap();
    let named = |name: &str| parts["components"].as_array().unwrap().iter().any(|part| part["name"] == name);
    assert!(parts["bomFormat"] == "CycloneDX" && named("datafusion") && named("timely") && !named("radarflow-proto"));

    // The unit is read as the machine's own would be, with the program where it is now.
    let unit = std::fs::read_to_string(root.join("usr/lib/systemd/system/radarflow.service")).unwrap();
    let unit: String =
        unit.lines().filter(|line| !line.starts_with("Documentation=")).map(|l| l.to_owned() + "\n").collect();
    let file = dir.path().join("radarflow.service");
    std::fs::write(&file, unit.replace("/usr/bin/radarflow", &installed.display().to_string())).unwrap();
    let verified = ran(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file));
    assert!(!verified.contains("radarflow.service"), "{verified}");

    let listed = ran(Command::new("tar").arg("-tzf").arg(&tarball));
    for wanted in ["/bin/radarflow\n", "/systemd/radarflow.service\n", "/share/man/man1/radarflow.1.gz\n"] {
        assert!(listed.contains(wanted), "{wanted} is not in\n{listed}");
    }
}

fn documents(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn manifests_can_be_read_and_configure_what_there_is() {
    for file in files(&deploy(), ".yaml") {
        assert!(!documents(&file).is_empty(), "{}", file.display());
    }
    let folder = deploy().join("kubernetes");
    let mut kinds = BTreeSet::new();
    for manifest in files(&folder, ".yaml").iter().flat_map(|file| documents(file)) {
        kinds.insert(manifest["kind"].as_str().unwrap().to_owned());
        if let Some(toml) = manifest["data"]["radarflow.toml"].as_str() {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("radarflow.toml");
            std::fs::write(&file, toml).unwrap();
            let checked = check_config(&file, &[]);
            assert!(checked.status.success(), "{}", told(&checked));
        }
    }
    for kind in ["StatefulSet", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor", "ConfigMap", "Service"] {
        assert!(kinds.contains(kind), "{kind} is not among {kinds:?}");
    }
    let listed = documents(&folder.join("kustomization.yaml"));
    for resource in listed[0]["resources"].as_array().unwrap() {
        assert!(folder.join(resource.as_str().unwrap()).exists(), "{resource}");
    }
    // What compose says by the environment is configuration, too.
    let compose = documents(&deploy().join("compose.yaml"));
    let environment = compose[0]["services"]["radarflow"]["environment"].as_object().unwrap();
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("radarflow.toml");
    std::fs::write(&empty, "").unwrap();
    let checked = check_config(&empty, &environment);
    assert!(checked.status.success(), "{}", told(&checked));
}

/// Names of our metrics in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("radarflow_")).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_metric_of_a_dashboard_or_rule_is_measured_and_documented() {
    let mut home = Home::new("");
    let server = home.start();
    // Some families are told of once something happened.
    server.count("devices", 0).await;
    let measured = reqwest::get(format!("{}/metrics", server.http)).await.unwrap().text().await.unwrap();
    // Series of sources come with the first source; their families are there from the start.
    let families = measured.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let families = families.filter_map(|line| {
        let (name, kind) = line.split_once(' ')?;
        Some(if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
    });
    let families: BTreeSet<String> = families.collect();
    let mut files = files(&deploy().join("grafana"), ".json");
    files.push(deploy().join("prometheus/alerts.yaml"));
    for file in files {
        let asked = metrics(&std::fs::read_to_string(&file).unwrap());
        assert!(asked.len() > 5, "{}", file.display());
        let unknown: Vec<&String> = asked.difference(&families).collect();
        assert!(unknown.is_empty(), "{} asks for {unknown:?}; there are {families:?}", file.display());
    }
    server.stop();
    let documented = ran(Command::new(PROGRAM).args(["docs", "metrics"]));
    for family in families {
        let name = family.strip_suffix("_total").unwrap_or(&family);
        assert!(documented.contains(&format!("- `{name}`: ")), "{name} is not documented");
    }
}

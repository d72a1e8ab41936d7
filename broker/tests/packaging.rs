//! What the Debian package installs beside the programs fits them: the configuration, the systemd
//! unit, and that a broker tells its supervisor when it serves and when it stops.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ringway_testing::{BrokerOptions, Need, Scratch, require};

const BROKER: &str = env!("CARGO_BIN_EXE_ringway-broker");
const UNIT: &str = "debian/ringway.ringway-broker.service";

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .join(file)
}

fn text(file: &str) -> String {
    let path = packaging(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The value of a key of the unit.
fn of_unit(key: &str) -> String {
    let unit = text(UNIT);
    let value = unit.lines().find_map(|line| line.strip_prefix(key));
    let value = value.and_then(|value| value.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {key}")).to_owned()
}

/// The packaged configuration with its settings in force, also those that are comments there.
#[test]
fn the_installed_configuration_is_right_also_with_its_suggestions() {
    let scratch = Scratch::new(env!("CARGO_TARGET_TMPDIR"), "packaging").unwrap();
    let installed = text("broker.toml");
    let taken_up = installed.replace("\n# listen =", "\nlisten =");
    let taken_up = taken_up.replace("\n# advertise =", "\nadvertise =");
    assert_ne!(installed, taken_up);
    for (content, listen) in [(installed, "127.0.0.1:7420"), (taken_up, "0.0.0.0:7420")] {
        let file = scratch.path().join("broker.toml");
        std::fs::write(&file, content).unwrap();
        let output = Command::new(BROKER)
            .args(["config", "print", "--config"])
            .arg(&file)
            .output()
            .unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{:?}", output.stderr);
        assert!(shown.contains("data_dir = \"/var/lib/ringway/data\""));
        assert!(shown.contains(&format!("listen = \"{listen}\"")), "{shown}");
    }
}

#[test]
fn the_unit_starts_what_the_package_installs() {
    let manifest = include_str!("../Cargo.toml");
    let command = of_unit("ExecStart");
    let mut words = command.split(' ');
    assert_eq!(words.next(), Some("/usr/bin/ringway-broker"));
    assert!(manifest.contains(r#""target/release/ringway-broker", "usr/bin/""#));
    let arguments: Vec<&str> = words.collect();
    let [start, config, file] = arguments[..] else {
        panic!("{command}");
    };
    assert_eq!((start, config), ("start", "--config"));
    let installed = file.trim_start_matches('/');
    assert!(manifest.contains(&format!("\"../packaging/broker.toml\", \"{installed}\"")));
    assert!(manifest.contains(&format!("conf-files = [\"{file}\"]")));
    let user = of_unit("User");
    assert!(text("debian/postinst").contains(&format!(" {user}\n")));
    let state = format!("/var/lib/{}/", of_unit("StateDirectory"));
    assert!(text("broker.toml").contains(&state), "it may write there");
}

#[test]
fn systemd_understands_the_unit() {
    if !require(&[Need::SystemdAnalyze]) {
        return;
    }
    let scratch = Scratch::new(env!("CARGO_TARGET_TMPDIR"), "unit").unwrap();
    let unit = scratch.path().join("ringway-broker.service");
    // The package isn't installed here.
    let here = text(UNIT).replace("/usr/bin/ringway-broker", BROKER);
    std::fs::write(&unit, here).unwrap();
    let verified = |unit: &Path| {
        let mut verify = Command::new("systemd-analyze");
        let output = verify.arg("verify").arg(unit).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let of_unit = |said: &str| -> Vec<String> {
        let lines = said.lines().filter(|line| line.contains("ringway-broker"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(of_unit(&verified(&unit)), Vec::<String>::new());
    let wrong = std::fs::read_to_string(&unit).unwrap();
    std::fs::write(&unit, wrong.replace("LimitMEMLOCK=", "LimitMemlock=")).unwrap();
    assert_ne!(of_unit(&verified(&unit)), Vec::<String>::new());
}

#[test]
fn a_supervisor_is_told_when_the_broker_serves_and_when_it_stops() {
    let scratch = Scratch::new(env!("CARGO_TARGET_TMPDIR"), "supervised").unwrap();
    let name = scratch.path().join("notify");
    let socket = UnixDatagram::bind(&name).unwrap();
    let limit = Some(Duration::from_secs(20));
    socket.set_read_timeout(limit).unwrap();
    let heard = || {
        let mut buffer = [0; 200];
        let bytes = socket.recv(&mut buffer).expect("it is told");
        String::from_utf8_lossy(&buffer[..bytes]).into_owned()
    };
    let options = BrokerOptions::new(BROKER, &scratch).variable("NOTIFY_SOCKET", &name);
    let mut broker = options.start().unwrap();
    assert!(heard().starts_with("READY=1\n"));
    let status = broker.stop(Duration::from_secs(20)).unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(heard().starts_with("STOPPING=1\n"));
}

//! The command line of `ringway-broker`: every knob as a flag, with or without the word `start`,
//! and the few commands beside it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use ringway_wire::Offset;

use crate::config::{Config, ConfigError, KNOBS};
use crate::log_tools::{DumpOptions, Selection, VerifyOptions};

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run a broker.
    Start(Box<Config>),
    /// Run the demonstration.
    Demo(DemoOptions),
    /// Print the configuration in force.
    ConfigPrint(Box<Config>),
    /// Say whether the configuration is right.
    ConfigCheck(Box<Config>),
    /// Look for damage in a data directory.
    LogVerify(VerifyOptions),
    /// Show what is in a data directory.
    LogDump(DumpOptions),
    /// Print a completion script for a shell.
    Completions(Shell),
}

/// What the demonstration is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoOptions {
    /// How long it publishes.
    pub duration: Duration,
    /// Where its data goes; `None` is a fresh directory beside the current one.
    pub data_dir: Option<PathBuf>,
    /// Whether the data stays when it is over. A directory that was named always stays.
    pub keep: bool,
    /// Whether the summary is one JSON object.
    pub json: bool,
}

/// Why a command line is not one.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// It isn't understood, or asks for help or the version.
    #[error("{0}")]
    Clap(#[from] clap::Error),
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
}

/// Understands a command line, the program's name first.
///
/// # Errors
/// [`UsageError`]; a request for help or the version is one too, of clap's making.
pub fn parse<I, T>(arguments: I) -> Result<Action, UsageError>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let matches = command().try_get_matches_from(arguments)?;
    match matches.subcommand() {
        None => Ok(Action::Start(config(&matches)?)),
        Some(("start", matches)) => Ok(Action::Start(config(matches)?)),
        Some(("demo", matches)) => Ok(Action::Demo(DemoOptions {
            duration: Duration::from_secs(*matches.get_one("seconds").expect("has a default")),
            data_dir: matches.get_one::<PathBuf>("data_dir").cloned(),
            keep: matches.get_flag("keep"),
            json: matches.get_flag("json"),
        })),
        Some(("config", matches)) => match matches.subcommand() {
            Some(("print", matches)) => Ok(Action::ConfigPrint(config(matches)?)),
            Some(("check", matches)) => Ok(Action::ConfigCheck(config(matches)?)),
            _ => unreachable!("clap demands one of the two"),
        },
        Some(("log", matches)) => Ok(log(matches)),
        Some(("completions", matches)) => {
            let shell = matches.get_one("shell").copied();
            Ok(Action::Completions(shell.expect("clap demands it")))
        }
        Some((other, _)) => unreachable!("clap knows no command {other}"),
    }
}

fn log(matches: &ArgMatches) -> Action {
    let (command, matches) = matches
        .subcommand()
        .expect("clap demands one of the commands");
    let selection = Selection {
        data_dir: matches
            .get_one::<PathBuf>("data_dir")
            .cloned()
            .expect("clap demands it"),
        topic: matches.get_one::<String>("topic").cloned(),
        partition: matches.get_one("partition").copied(),
    };
    let json = matches
        .get_one::<String>("output")
        .is_some_and(|output| output == "json");
    let offset = |name| matches.get_one::<u64>(name).copied().map(Offset);
    match command {
        "verify" => Action::LogVerify(VerifyOptions { selection, json }),
        _ => Action::LogDump(DumpOptions {
            selection,
            from: offset("from").unwrap_or_default(),
            to: offset("to").unwrap_or(Offset(u64::MAX)),
            records: matches.get_flag("records"),
            json,
        }),
    }
}

fn config(matches: &ArgMatches) -> Result<Box<Config>, ConfigError> {
    let file = matches.get_one::<PathBuf>("config").map(PathBuf::as_path);
    let flag = |key| {
        matches
            .get_one::<String>(key)
            .map(|value| (key, value.as_str()))
    };
    let flags = KNOBS.iter().filter_map(|knob| flag(knob.key));
    Config::load(file, flags).map(Box::new)
}

/// The whole grammar, for help, completions and tests.
#[must_use]
pub fn command() -> Command {
    let start = "Run a broker (also without the word)";
    with_knobs(Command::new("ringway-broker"))
        .about("The Ringway message broker: one io_uring-driven thread per core")
        .after_help(
            "Without a command it starts a broker on 127.0.0.1:7420 with its data in \
             ./ringway-data.\nExit status: 0 stopped in order, 1 failed, 2 wrong usage or \
             configuration, 3 the machine lacks something.\n\n"
                .to_owned()
                + EXAMPLES,
        )
        .version(env!("CARGO_PKG_VERSION"))
        .args_conflicts_with_subcommands(true)
        .subcommand(
            with_knobs(Command::new("start"))
                .about(start)
                .after_help(EXAMPLES_START),
        )
        .subcommand(demo())
        .subcommand(log_command())
        .subcommand(config_command())
        .subcommand(completions_command())
}

const EXAMPLES: &str = "Examples:
  ringway-broker
  ringway-broker --data-dir /var/lib/ringway --listen 0.0.0.0:7420 --advertise broker1
  ringway-broker --config /etc/ringway/broker.toml
  ringway-broker demo";

const EXAMPLES_START: &str = "Examples:
  ringway-broker start
  ringway-broker start --data-dir /var/lib/ringway --listen 0.0.0.0:7420 --advertise broker1
  ringway-broker start --config /etc/ringway/broker.toml --shards 2";

fn config_command() -> Command {
    let print = "Print the configuration in force, as a file that explains itself";
    let check = "Say whether the configuration is right; change nothing";
    Command::new("config")
        .about("Look at the configuration")
        .after_help(
            "Examples:
  ringway-broker config print > broker.toml
  ringway-broker config check --config broker.toml",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_knobs(Command::new("print")).about(print).after_help(
            "Examples:
  ringway-broker config print > broker.toml
  ringway-broker config print --config broker.toml --shards 2",
        ))
        .subcommand(with_knobs(Command::new("check")).about(check).after_help(
            "Examples:
  ringway-broker config check --config broker.toml",
        ))
}

fn completions_command() -> Command {
    Command::new("completions")
        .about("Print a completion script for a shell")
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(value_parser!(Shell))
                .help("The shell"),
        )
        .after_help(
            "Examples:
  ringway-broker completions bash > ~/.local/share/bash-completion/completions/ringway-broker
  ringway-broker completions zsh > ~/.zfunc/_ringway-broker",
        )
}

/// The completion script of a shell.
#[must_use]
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "ringway-broker", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn log_command() -> Command {
    let verify = "Check every CRC, offset, epoch and link of the logs; change nothing";
    let dump = "Show the batches, or the records, in the logs; change nothing";
    let offset = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("OFFSET")
            .value_parser(value_parser!(u64))
            .help(help)
    };
    Command::new("log")
        .about("Look into a data directory that no broker runs on")
        .after_help(EXAMPLES_LOG)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            with_selection(Command::new("verify").about(verify)).after_help(EXAMPLES_VERIFY),
        )
        .subcommand(
            with_selection(Command::new("dump").about(dump))
                .arg(offset("from", "Leave out what is before this offset"))
                .arg(offset("to", "Stop before this offset"))
                .arg(
                    Arg::new("records")
                        .long("records")
                        .action(ArgAction::SetTrue)
                        .help("Show the records too, not only their batches"),
                )
                .after_help(EXAMPLES_DUMP),
        )
}

const EXAMPLES_LOG: &str = "Examples:
  ringway-broker log verify /var/lib/ringway
  ringway-broker log dump /var/lib/ringway --topic orders --partition 0 --records";

const EXAMPLES_VERIFY: &str = "Examples:
  ringway-broker log verify /var/lib/ringway
  ringway-broker log verify /var/lib/ringway --topic orders --partition 0
  ringway-broker log verify /var/lib/ringway --output json | jq .damage

Exit status: 0 nothing is damaged, 1 something is, 2 wrong usage, 3 it can't be looked at.";

const EXAMPLES_DUMP: &str = "Examples:
  ringway-broker log dump /var/lib/ringway --topic orders --partition 0
  ringway-broker log dump /var/lib/ringway --topic orders --from 1000 --to 1010 --records
  ringway-broker log dump /var/lib/ringway --output json | jq 'select(.event == \"batch\")'

Exit status: 0 nothing is damaged, 1 something is, 2 wrong usage, 3 it can't be looked at.";

fn with_selection(command: Command) -> Command {
    command
        .arg(
            Arg::new("data_dir")
                .value_name("DATA_DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The data directory; no broker may be running on it"),
        )
        .arg(
            Arg::new("topic")
                .long("topic")
                .value_name("TOPIC")
                .help("Only this topic, by its name or the 32 digits of its id"),
        )
        .arg(
            Arg::new("partition")
                .long("partition")
                .value_name("P")
                .requires("topic")
                .value_parser(value_parser!(u32))
                .help("Only this partition of the topic"),
        )
        .arg(
            Arg::new("output")
                .long("output")
                .value_name("FORMAT")
                .default_value("text")
                .value_parser(["text", "json"])
                .help("Text for people, or JSON for programs"),
        )
}

fn demo() -> Command {
    Command::new("demo")
        .about(
            "Publish this machine's own live telemetry through a broker in this process, consume \
             and verify it",
        )
        .after_help(
            "Examples:
  ringway-broker demo
  ringway-broker demo --seconds 5 --json
  ringway-broker demo --seconds 60 --data-dir ./telemetry",
        )
        .arg(
            Arg::new("seconds")
                .long("seconds")
                .value_name("N")
                .default_value("20")
                .value_parser(value_parser!(u64).range(1..=86_400))
                .help("How long to publish"),
        )
        .arg(
            Arg::new("data_dir")
                .long("data-dir")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .conflicts_with("keep")
                .help("Where the data goes, and stays; must be empty or new"),
        )
        .arg(
            Arg::new("keep")
                .long("keep")
                .action(ArgAction::SetTrue)
                .help("Keep the data that would be removed at the end"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print the summary as one JSON object"),
        )
}

fn with_knobs(command: Command) -> Command {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("TOML file with the same keys; flags override it");
    KNOBS.iter().fold(command.arg(file), |command, knob| {
        let default = match knob.default {
            "" => String::new(),
            default => format!(" [default: {default}]"),
        };
        command.arg(
            Arg::new(knob.key)
                .long(knob.key.replace('_', "-"))
                .value_name(knob.value)
                .help(format!("{}{default}", knob.help))
                .long_help(format!("{} Change it {}.{default}", knob.help, knob.change)),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Action, UsageError> {
        parse(["ringway-broker"].iter().chain(arguments))
    }

    fn started(arguments: &[&str]) -> Config {
        match parsed(arguments).unwrap() {
            Action::Start(config) => *config,
            other => panic!("{other:?}"),
        }
    }

    fn refused(arguments: &[&str]) -> String {
        parsed(arguments)
            .expect_err("it has to be refused")
            .to_string()
    }

    #[test]
    fn the_grammar_is_consistent() {
        command().debug_assert();
    }

    /// Every command, with its name as typed.
    fn commands(command: &Command, name: &str, found: &mut Vec<(String, Command)>) {
        found.push((name.to_owned(), command.clone()));
        for sub in command
            .get_subcommands()
            .filter(|sub| sub.get_name() != "help")
        {
            commands(sub, &format!("{name} {}", sub.get_name()), found);
        }
    }

    #[test]
    fn every_help_is_complete_and_its_examples_are_commands() {
        let mut root = command();
        root.build();
        let mut found = Vec::new();
        commands(&root, "ringway-broker", &mut found);
        for (name, mut command) in found {
            for argument in command.get_arguments() {
                let id = argument.get_id();
                assert!(argument.get_help().is_some(), "{name}: {id} has no help");
            }
            assert!(command.get_about().is_some(), "{name} says what it does");
            for help in [command.render_help(), command.render_long_help()] {
                let help = help.to_string();
                let (_, examples) = help.split_once("\nExamples:\n").expect(&name);
                let lines: Vec<&str> = examples
                    .lines()
                    .take_while(|line| line.starts_with("  "))
                    .collect();
                assert!(!lines.is_empty(), "{name}");
                for line in lines {
                    assert!(line.trim_start().starts_with(&name), "{name}: {line}");
                    let words = line.split_whitespace();
                    let words = words.take_while(|word| !matches!(*word, ">" | "|"));
                    // A file that isn't here is no fault of the example.
                    match parse(words) {
                        Ok(_) => {}
                        Err(UsageError::Config(error)) if line.contains("--config") => {
                            assert!(error.to_string().contains(".toml"), "{line}: {error}");
                        }
                        // A command with commands shows its help.
                        Err(error) => panic!("{line}: {error}"),
                    }
                }
            }
        }
    }

    #[test]
    fn completions_know_the_commands() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let Action::Completions(shell) = parsed(&["completions", shell]).unwrap() else {
                panic!("{shell} is a shell");
            };
            let script = completions(shell);
            assert!(
                script.contains("verify") && script.contains("data-dir"),
                "{shell}"
            );
        }
        assert!(refused(&["completions", "dos"]).contains("bash"));
    }

    #[test]
    fn start_is_the_default_with_all_its_flags() {
        assert_eq!(started(&[]), Config::default());
        assert_eq!(started(&["start"]), Config::default());
        let flags = [
            "--listen",
            "127.0.0.1:0",
            "--shards=3",
            "--idle",
            "busy-poll",
        ];
        let config = started(&flags);
        assert_eq!(config.shards, 3);
        let with_word = [&["start"], &flags[..]].concat();
        assert_eq!(started(&with_word), config);
    }

    #[test]
    fn every_knob_is_a_flag() {
        for knob in &KNOBS {
            let flag = format!("--{}", knob.key.replace('_', "-"));
            assert_eq!(started(&[&flag, knob.default]), Config::default(), "{flag}");
        }
    }

    #[test]
    fn slips_are_named() {
        assert!(refused(&["--shard", "1"]).contains("--shards"));
        assert!(refused(&["strat"]).contains("start"));
        assert!(refused(&["--shards", "many"]).contains("shards can't be \"many\""));
        assert!(refused(&["--config", "/nonexistent"]).contains("/nonexistent"));
        assert!(refused(&["--listen", "0.0.0.0:7420"]).contains("advertise"));
        assert!(refused(&["--shards", "1", "demo"]).contains("demo"));
    }

    #[test]
    fn the_other_commands_are_understood() {
        let demo = DemoOptions {
            duration: Duration::from_secs(20),
            data_dir: None,
            keep: false,
            json: false,
        };
        assert_eq!(parsed(&["demo"]).unwrap(), Action::Demo(demo.clone()));
        let all = ["demo", "--seconds", "5", "--keep", "--json"];
        let asked = DemoOptions {
            duration: Duration::from_secs(5),
            keep: true,
            json: true,
            ..demo
        };
        assert_eq!(parsed(&all).unwrap(), Action::Demo(asked));
        assert!(refused(&["demo", "--keep", "--data-dir", "d"]).contains("--data-dir"));
        assert!(refused(&["demo", "--seconds", "0"]).contains("seconds"));
        let print = parsed(&["config", "print", "--shards", "2"]).unwrap();
        assert!(matches!(print, Action::ConfigPrint(config) if config.shards == 2));
        assert!(matches!(
            parsed(&["config", "check"]).unwrap(),
            Action::ConfigCheck(_)
        ));
    }
}

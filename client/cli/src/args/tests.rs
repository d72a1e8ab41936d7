//! The command line as its users type it.

use clap::{CommandFactory, Parser};
use ringway_wire::batch::Codec;

use super::*;
use crate::args::produce::AcksArg;
use crate::args::value::{ProfileArg, Separator};
use crate::format::Format;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

fn produce(line: &str) -> ProduceArgs {
    match parse(line).unwrap().command {
        Command::Produce(args) => args,
        other => panic!("not produce: {other:?}"),
    }
}

fn consume(line: &str) -> ConsumeArgs {
    match parse(line).unwrap().command {
        Command::Consume(args) => args,
        other => panic!("not consume: {other:?}"),
    }
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

/// Every command, with its name as typed.
fn commands(command: &clap::Command, name: &str, found: &mut Vec<(String, clap::Command)>) {
    found.push((name.to_owned(), command.clone()));
    for sub in command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
    {
        commands(sub, &format!("{name} {}", sub.get_name()), found);
    }
}

#[test]
fn every_help_is_complete_and_ends_with_examples() {
    let mut root = Cli::command();
    root.build();
    let mut found = Vec::new();
    commands(&root, "ringway", &mut found);
    assert_eq!(found.len(), 14);
    for (name, mut command) in found {
        for argument in command.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "{name}: {} has no help",
                argument.get_id()
            );
        }
        for help in [command.render_help(), command.render_long_help()] {
            let help = help.to_string();
            let (_, examples) = help.split_once("\nExamples:\n").expect(&name);
            assert!(!examples.trim().is_empty(), "{name}");
            for line in examples.lines() {
                assert!(line.starts_with("  "), "{name}: examples end with {line:?}");
                assert!(
                    line.contains(name.split(' ').next_back().unwrap()),
                    "{name}: {line}"
                );
            }
        }
    }
}

/// The words of the `ringway` command in a line of shell; quoted ones stay together.
fn words(line: &str) -> Vec<String> {
    let start = line.find("ringway ").expect(line);
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line[start..].chars() {
        match c {
            '\'' => quoted = !quoted,
            '|' | '<' | '>' if !quoted => break,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn every_example_is_a_command() {
    let mut root = Cli::command();
    root.build();
    let mut found = Vec::new();
    commands(&root, "ringway", &mut found);
    for (name, mut command) in found {
        let help = command.render_long_help().to_string();
        let (_, examples) = help.split_once("\nExamples:\n").expect(&name);
        for line in examples.lines() {
            let parsed = Cli::try_parse_from(words(line));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }
}

#[test]
fn profiles_have_names_and_a_default() {
    assert_eq!(produce("ringway produce t").profile, ProfileArg::Balanced);
    let latency = consume("ringway consume t --profile latency");
    assert_eq!(latency.profile, ProfileArg::Latency);
    let error = parse("ringway produce t --profile fast").unwrap_err();
    assert!(error.to_string().contains("throughput"), "{error}");
}

#[test]
fn what_formats_and_inputs_mean_is_in_the_long_help() {
    let mut root = Cli::command();
    root.build();
    for (name, line) in [
        ("produce", "a CR is data; the last line may lack its LF"),
        ("consume", "%t timestamp in milliseconds"),
        ("offsets", "the high watermark"),
    ] {
        let help = root
            .find_subcommand_mut(name)
            .unwrap()
            .render_long_help()
            .to_string();
        assert!(help.contains(line), "{name}");
    }
    let topic = root.find_subcommand_mut("topic").unwrap();
    for (name, word) in [
        ("create", "segment_bytes"),
        ("alter", "goes back to the default"),
    ] {
        let help = topic
            .find_subcommand_mut(name)
            .unwrap()
            .render_long_help()
            .to_string();
        assert!(help.contains(word), "{name}");
    }
}

#[test]
fn globals_stand_anywhere_and_have_defaults() {
    let cli = parse("ringway topic list").unwrap();
    assert!(!cli.global.json());
    let cli = parse("ringway --broker a:1,b:2 topic list --output json").unwrap();
    assert_eq!(cli.global.broker, "a:1,b:2");
    assert!(cli.global.json());
}

#[test]
fn topics_take_configuration() {
    let Command::Topic(topic) =
        parse("ringway topic create t --partitions 3 --config a=1 --config b=")
            .unwrap()
            .command
    else {
        panic!("not a topic command");
    };
    let TopicCommand::Create(create) = topic.command else {
        panic!("not create");
    };
    assert_eq!((create.name.as_str(), create.partitions), ("t", 3));
    assert_eq!(create.config.len(), 2);
    assert!(parse("ringway topic create t --partitions 0").is_err());
    assert!(parse("ringway topic create t --config a").is_err());
    assert!(parse("ringway topic alter t").is_err());
}

#[test]
fn produce_takes_all_its_options() {
    let args = produce(
        "ringway produce t --input lines --key-separator \\t --header a=1 --header b=2 --tag x \
         --timestamp -5 --partition 2 --acks leader --batch-bytes 64K --batch-records 7 --create 4 \
         --codec lz4 --trace",
    );
    args.check().unwrap();
    assert_eq!(args.key_separator, Some(Separator(b"\t".to_vec())));
    assert_eq!(args.header.len(), 2);
    assert_eq!(args.timestamp, Some(-5_000));
    assert_eq!(args.partition, Some(2));
    assert_eq!(args.acks, AcksArg::Leader);
    assert_eq!(
        (args.batch_bytes, args.batch_records),
        (Some(65_536), Some(7))
    );
    assert_eq!((args.create, args.trace), (Some(4), true));
    assert_eq!(args.codec, Some(Codec::Lz4));
    let plain = produce("ringway produce t");
    assert_eq!((plain.input, plain.acks), (InputShape::Lines, AcksArg::All));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    assert!(parse("ringway produce t --input chunks").is_err());
    let error = parse("ringway produce t --codec gzip").unwrap_err();
    assert!(
        error.to_string().contains("take none, lz4 or zstd"),
        "{error}"
    );
    produce("ringway produce t --input chunks --value-bytes 10")
        .check()
        .unwrap();
    for line in [
        "ringway produce t --value-bytes 10",
        "ringway produce t --input frames --key-separator :",
        "ringway produce t --acks none --trace",
        "ringway produce t --input chunks --value-bytes 1G",
    ] {
        assert!(produce(line).check().is_err(), "{line}");
    }
}

#[test]
fn consume_takes_all_its_options() {
    let args = consume("ringway consume t --partition 1 --from @12 --count 3 --until-end");
    assert_eq!(
        (args.partition, args.count, args.until_end),
        (Some(1), Some(3), true)
    );
    assert_eq!(args.from, StartFrom::TimeUs(12_000));
    assert_eq!(consume("ringway consume t").from, StartFrom::Start);
    assert_eq!(consume("ringway consume t --from end").from, StartFrom::End);
    assert_eq!(
        consume("ringway consume t --from 17").from,
        StartFrom::Offset(17)
    );
    assert_eq!(
        consume("ringway consume t --format raw").format,
        Some(Format::Raw)
    );
    for wrong in [
        "--from middle",
        "--from @x",
        "--from -1",
        "--count -1",
        "--format %q",
    ] {
        assert!(
            parse(&format!("ringway consume t {wrong}")).is_err(),
            "{wrong}"
        );
    }
}

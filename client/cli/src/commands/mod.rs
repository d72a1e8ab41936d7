//! What each command does, by way of the client library.

mod consume;
mod offsets;
mod produce;
mod top;
mod topic;

use clap::CommandFactory;
use ringway_client::{Client, ClientConfig};

use crate::args::{Cli, Command, CompletionsArgs, GlobalArgs};
use crate::exit::Failure;
use crate::output;

/// Carries out the command line.
pub(crate) async fn run(cli: &Cli) -> Result<(), Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Topic(args) => topic::run(global, &args.command).await,
        Command::Produce(args) => produce::run(global, args).await,
        Command::Consume(args) => consume::run(global, args).await,
        Command::Offsets(args) => offsets::run(global, &args.topic).await,
        Command::Top(args) => top::run(global, args).await,
        Command::Completions(args) => completions(args),
    }
}

async fn connect(global: &GlobalArgs) -> Result<Client, Failure> {
    let mut config = ClientConfig::new(&global.broker);
    config.client_name = format!("ringway {}", env!("CARGO_PKG_VERSION"));
    Ok(Client::with_config(config).await?)
}

fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ringway", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

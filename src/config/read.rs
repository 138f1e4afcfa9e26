//! Reading settings: a value may be given under several names, and a secret also in a file.
//!
//! The command line is parsed twice: first to learn what was given by which name, then with each
//! value under the setting's own name.

use std::ffi::OsString;
use std::path::Path;

use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches, value_parser};

use super::broker::amqp_urls;
use super::cli::{Cli, Command};
use super::file;
use super::secret::{MASK, Secret, holds_secret, without_secrets};
use super::shown::{self, ShownSetting};

/// Names under which other software has RabbitMQ's URL; the first that is set counts.
const AMQP_URLS: [&str; 2] = ["rabbitmq_url", "cloudamqp_url"];

/// The commands whose settings `config` shows.
const CONFIGURED: [&str; 5] = ["serve", "accept", "consume", "migrate", "healthcheck"];

/// A setting whose value was given by another name.
struct Found {
    /// The setting's own.
    id: String,
    value: OsString,
    origin: String,
}

impl Cli {
    /// Reads the command line and the environment, and the files of secrets. The error says what is
    /// wrong with them, and shows nothing that may be a password.
    pub fn read() -> Result<Self, clap::Error> {
        let arguments: Vec<_> = std::env::args_os().collect();
        let shown = arguments
            .iter()
            .map(|argument| argument.to_string_lossy().into_owned());
        let shown: Vec<_> = shown.collect();
        Self::read_from(arguments).map_err(|error| without_secrets(error, &shown))
    }
}

impl Cli {
    /// Reads these arguments, the first of which is the program.
    pub(super) fn read_from(arguments: Vec<OsString>) -> Result<Self, clap::Error> {
        let mut lenient = command().mut_subcommands(without_requirements);
        lenient.build();
        let first = match lenient.try_get_matches_from_mut(&arguments) {
            Err(error) if error.kind() == ErrorKind::DisplayHelp => {
                return Self::of(&command().try_get_matches_from(arguments)?);
            }
            first => first?,
        };
        let Some(role) = Role::of(&lenient, &first) else {
            return Self::of(&first);
        };
        let found = role.found()?;
        let second = command().try_get_matches_from(role.with(arguments, &found))?;
        let mut cli = Self::of(&second)?;
        if let (Command::Config { settings, .. }, Some(of)) = (&mut cli.command, role_in(&second)) {
            *settings = role.shown(of.1, &found);
        }
        Ok(cli)
    }

    /// What was parsed, if it goes together; of `config`, what its role's settings are.
    fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let cli = Self::from_arg_matches(matches)?;
        let Some(config) = matches.subcommand_matches("config") else {
            return cli.checked();
        };
        let command = Command::from_arg_matches(config)?;
        let mut cli = Self { command, ..cli }.checked()?;
        cli.command = Command::Config {
            settings: Vec::new(),
            of: Some(Box::new(cli.command)),
        };
        Ok(cli)
    }
}

/// The command line, with each setting's other names.
pub(super) fn command() -> clap::Command {
    let command = Cli::command().mut_subcommands(with_other_names);
    let configured = CONFIGURED
        .iter()
        .filter_map(|name| command.find_subcommand(name));
    let configured: Vec<_> = configured.cloned().collect();
    command.mut_subcommand("config", |config| {
        let config = config
            .subcommand_required(true)
            .arg_required_else_help(true);
        config
            .subcommands(configured)
            .subcommand_value_name("COMMAND")
    })
}

fn with_other_names(mut command: clap::Command) -> clap::Command {
    if let Some(listen) = argument(&command, "listen") {
        let port = Arg::new("port").long("port").env("PORT").value_name("PORT");
        let port = port.value_parser(value_parser!(u16).range(1..));
        let port = port.help("The port of 0.0.0.0 where POST /ticket answers, if LISTEN is not set: what platforms set");
        let heading = heading(listen);
        command = command.arg(port.help_heading(heading));
    }
    if argument(&command, "amqp_url").is_some() {
        command = command.args(AMQP_URLS.map(other_amqp_url));
    }
    let secrets = command
        .get_arguments()
        .filter(|argument| is_secret(argument));
    let files: Vec<_> = secrets
        .filter_map(|secret| file_of(&command, secret))
        .collect();
    command.args(files)
}

/// That of a setting, for what belongs to it.
fn heading(of: &Arg) -> String {
    of.get_help_heading().unwrap_or("Options").to_owned()
}

fn other_amqp_url(id: &'static str) -> Arg {
    let parser = ValueParser::new(Secret(amqp_urls));
    let argument = Arg::new(id)
        .long(id.replace('_', "-"))
        .env(id.to_uppercase())
        .value_name(id.to_uppercase());
    let argument = argument.help("The name that other software uses for AMQP_URL");
    argument
        .value_parser(parser)
        .hide_env_values(true)
        .hide(true)
}

/// The file of a secret; none where the secret has one that is more than another way to give it.
fn file_of(command: &clap::Command, secret: &Arg) -> Option<Arg> {
    let (long, name) = (secret.get_long()?, secret.get_env()?.to_str()?);
    let long = format!("{long}-file");
    if command
        .get_arguments()
        .any(|argument| argument.get_long() == Some(&long))
    {
        return None;
    }
    let file = Arg::new(file_id(secret))
        .long(long)
        .env(format!("{name}_FILE"));
    let file = file
        .value_name("FILE")
        .value_parser(value_parser!(OsString));
    let file = file.help(format!("A file with {name}, instead of {name} itself"));
    Some(
        file.help_heading(heading(secret))
            .hide(secret.is_hide_set()),
    )
}

fn file_id(secret: &Arg) -> String {
    format!("{}.file", secret.get_id())
}

/// A secret may be in its file, which is not known yet.
fn without_requirements(command: clap::Command) -> clap::Command {
    let command = command.mut_subcommands(without_requirements);
    command.mut_args(|argument| match is_secret(&argument) {
        true => argument.required(false),
        false => argument,
    })
}

fn is_secret(argument: &Arg) -> bool {
    argument.is_hide_env_values_set()
}

fn argument<'a>(command: &'a clap::Command, id: &str) -> Option<&'a Arg> {
    command
        .get_arguments()
        .find(|argument| argument.get_id() == id)
}

/// The role that runs, or whose settings are shown, and what was parsed for it.
fn role_in(matches: &ArgMatches) -> Option<(&str, &ArgMatches)> {
    match matches.subcommand()? {
        ("config", config) => config.subcommand(),
        role => Some(role),
    }
}

/// A role, and what was given to it by any name.
struct Role<'a> {
    command: &'a clap::Command,
    given: &'a ArgMatches,
}

impl<'a> Role<'a> {
    fn of(command: &'a clap::Command, matches: &'a ArgMatches) -> Option<Self> {
        let (name, given) = role_in(matches)?;
        let command = command.find_subcommand(name)?;
        Some(Self { command, given })
    }

    /// The values that were given by another name than their own.
    fn found(&self) -> Result<Vec<Found>, clap::Error> {
        let mut found = Vec::new();
        for secret in self
            .command
            .get_arguments()
            .filter(|argument| is_secret(argument))
        {
            found.extend(self.in_file(secret)?);
        }
        let amqp_url = argument(self.command, "amqp_url").filter(|own| !self.is_known(own, &found));
        if let Some(own) = amqp_url {
            let mut others = AMQP_URLS.iter().filter_map(|id| argument(self.command, id));
            found.extend(others.find_map(|other| self.named(own, other, &found)));
        }
        let listen = argument(self.command, "listen").filter(|own| !self.is_given(own));
        if let Some((own, port)) = listen.zip(argument(self.command, "port")) {
            found.extend(self.named(own, port, &[]).map(|mut listen| {
                let mut address = OsString::from("0.0.0.0:");
                address.push(&listen.value);
                listen.value = address;
                listen
            }));
        }
        Ok(found)
    }

    /// A secret in its file.
    fn in_file(&self, secret: &Arg) -> Result<Option<Found>, clap::Error> {
        let Some(file) = argument(self.command, &file_id(secret)) else {
            return Ok(None);
        };
        let Some(path) = self.raw(file) else {
            return Ok(None);
        };
        let (own, other) = (variable(secret), variable(file));
        if self.is_given(secret) {
            return Err(wrong(
                file,
                &format!("{own} and {other} are both set, and only one may be"),
            ));
        }
        let path = Path::new(&path);
        let shown = path.display().to_string();
        let shown = if holds_secret(&shown) { MASK } else { &shown };
        match file::secret(path) {
            Ok(value) => Ok(Some(Found {
                id: secret.get_id().to_string(),
                value: value.into(),
                origin: format!("file {shown} ({})", self.origin(file)),
            })),
            Err(why) => Err(wrong(file, &format!("{other}: {shown}: {why}"))),
        }
    }

    /// A setting's value by another name, if it was given by that.
    fn named(&self, own: &Arg, other: &Arg, found: &[Found]) -> Option<Found> {
        let in_file = found
            .iter()
            .find(|found| found.id == other.get_id().as_str());
        let (value, origin) = match in_file {
            Some(in_file) => (in_file.value.clone(), in_file.origin.clone()),
            None => (self.raw(other)?, self.origin(other)),
        };
        let id = own.get_id().to_string();
        Some(Found { id, value, origin })
    }

    fn is_known(&self, own: &Arg, found: &[Found]) -> bool {
        self.is_given(own) || found.iter().any(|found| found.id == own.get_id().as_str())
    }

    /// Whether a value was given, and it is not just the default.
    fn is_given(&self, argument: &Arg) -> bool {
        let source = self.given.value_source(argument.get_id().as_str());
        source.is_some_and(|source| source != ValueSource::DefaultValue)
    }

    fn raw(&self, argument: &Arg) -> Option<OsString> {
        let mut values = self.given.get_raw(argument.get_id().as_str())?;
        values.next().map(ToOwned::to_owned)
    }

    fn origin(&self, argument: &Arg) -> String {
        match self.given.value_source(argument.get_id().as_str()) {
            Some(ValueSource::CommandLine) => {
                format!("flag --{}", argument.get_long().unwrap_or_default())
            }
            Some(ValueSource::EnvVariable) => format!("environment {}", variable(argument)),
            _ => "default".to_owned(),
        }
    }

    /// The arguments, with what was found under the settings' own names.
    fn with(&self, mut arguments: Vec<OsString>, found: &[Found]) -> Vec<OsString> {
        let name = self.command.get_name();
        let role = arguments
            .iter()
            .skip(1)
            .position(|argument| argument == name);
        let at = role.map_or(arguments.len(), |before| before + 2);
        let flags = found.iter().map(|found| {
            let mut flag = OsString::from(format!("--{}=", found.id.replace('_', "-")));
            flag.push(&found.value);
            flag
        });
        arguments.splice(at..at, flags.collect::<Vec<_>>());
        arguments
    }

    /// All settings of the role, as they are after what was found is put in its place.
    fn shown(&self, resolved: &ArgMatches, found: &[Found]) -> Vec<ShownSetting> {
        let settings = self
            .command
            .get_arguments()
            .filter(|argument| argument.get_env().is_some());
        let value = |argument: &Arg| {
            shown::value(argument, resolved).unwrap_or_else(|| {
                shown::default(argument, |name| {
                    let mut all = self.command.get_arguments();
                    shown::value(all.find(|other| variable(other) == name)?, resolved)
                })
            })
        };
        let shown = settings.filter(|argument| !argument.is_hide_set() || self.is_given(argument));
        let shown = shown.map(|argument| {
            let found = found
                .iter()
                .find(|found| found.id == argument.get_id().as_str());
            ShownSetting {
                name: variable(argument),
                value: value(argument),
                origin: found.map_or_else(|| self.origin(argument), |found| found.origin.clone()),
            }
        });
        shown.collect()
    }
}

/// The name of its environment variable.
fn variable(argument: &Arg) -> String {
    argument
        .get_env()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn wrong(argument: &Arg, why: &str) -> clap::Error {
    let message = format!("invalid value for '{argument}': {why}\n");
    clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(&Cli::command())
}

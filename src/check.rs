//! `radarflow check-config`: every mistake of a configuration in one run, with its line and column: what it says, the files that
//! it names, and whether what it names answers.

use std::path::Path;

use anyhow::{Result, bail};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use radarflow_connectors::library::digest;
use radarflow_connectors::mail::Mailer;
use radarflow_connectors::sinks::postgres;
use radarflow_connectors::sources::{kafka, nats, pull};
use radarflow_proto::flow::tables::FlowTables;

use crate::config::{self, Config, Mistake, Places};
use crate::enrichment::{self, BadFile};

/// What is said where nothing is wrong; an error that has every mistake otherwise.
pub(crate) async fn check(named: Option<&Path>, offline: bool) -> Result<String> {
    let config::Read { config, mut mistakes, places } = config::look(named)?;
    let judged = config.judge(&places);
    mistakes.extend(judged.mistakes);
    mistakes.extend(files(&config, &places));
    if !offline {
        mistakes.extend(asked(&config, &places).await);
    }
    mistakes.sort();
    let place = config::file(named).map_or_else(|| "the environment".to_owned(), |file| file.display().to_string());
    let told = |of: &[Mistake], what: &str| {
        let lines: Vec<String> = of.iter().map(|mistake| format!("\n  {what}{mistake}")).collect();
        lines.concat()
    };
    let doubts = told(&judged.doubts, "warning: ");
    match mistakes.len() {
        0 => Ok(format!("the configuration is fine{doubts}")),
        1 => bail!("a mistake in {place}:{}{doubts}", told(&mistakes, "")),
        n => bail!("{n} mistakes in {place}:{}{doubts}", told(&mistakes, "")),
    }
}

/// What a configuration leaves open, to whom, and what closes it.
pub(crate) fn hardening(named: Option<&Path>) -> Result<String> {
    let config::Read { config, mistakes, places } = config::look(named)?;
    if let Some(first) = mistakes.first() {
        bail!("the configuration has mistakes, which `radarflow check-config` tells: {first}");
    }
    let file = config::file(named);
    let mut open: Vec<String> = config.open(&places).iter().map(ToString::to_string).collect();
    open.extend(config::on_disk(file.as_deref(), &config.data_dir, nix::unistd::geteuid().is_root()));
    let lines: String = open.iter().map(|open| format!("\n  {open}")).collect();
    Ok(match open.len() {
        0 => "nothing is open".to_owned(),
        1 => format!("one thing is open:{lines}"),
        n => format!("{n} things are open:{lines}"),
    })
}

fn mistake(places: &Places, key: &str, said: String) -> Mistake {
    Mistake { at: places.at(key), said }
}

/// What is wrong in the files that it names.
fn files(config: &Config, places: &Places) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (name, path) in &config.mappings {
        if let Err(error) = config::mapping(path) {
            mistakes.push(mistake(places, &format!("mappings.{name}"), crate::cli::told(&error)));
        }
    }
    let cannot_use = |BadFile { path, why }: &BadFile| format!("cannot use {}: {why}", path.display());
    match enrichment::rules(&config.enrichment.rules) {
        Err(bad) => mistakes.push(mistake(places, "enrichment.rules", cannot_use(&bad))),
        Ok((_, bad)) => {
            mistakes.extend(bad.iter().map(|bad| mistake(places, "enrichment.rules", bad.to_string())));
        }
    }
    match enrichment::tables(&config.enrichment, &FlowTables::default(), &|bytes| Ok(digest(bytes))) {
        Err(error) => mistakes.push(mistake(places, "enrichment", crate::cli::told(&error))),
        Ok((_, bad)) => mistakes.extend(bad.iter().map(|bad| mistake(places, "enrichment", cannot_use(bad)))),
    }
    mistakes
}

/// What does not answer. All are asked at once: each has its own patience.
async fn asked(config: &Config, places: &Places) -> Vec<Mistake> {
    let mut asked: Vec<BoxFuture<'_, Option<Mistake>>> = Vec::new();
    let failed = |key: String, section: &'static str, error: anyhow::Error| {
        mistake(places, &key, format!("{section}: {}", crate::cli::told(&error)))
    };
    if let Some(sink) = &config.sinks.postgres {
        let ask = async move {
            let error = postgres::check(&sink.url).await.err()?;
            let advice = error.advice();
            let said = if advice == "it is tried again" { String::new() } else { format!("; {advice}") };
            Some(mistake(places, "sinks.postgres.url", format!("[sinks.postgres]: {error}{said}")))
        };
        asked.push(ask.boxed());
    }
    for (n, source) in config.sources.nats.iter().enumerate() {
        let source = source.source();
        let ask = async move {
            let error = nats::check(&source).await.err()?;
            Some(failed(format!("sources.nats.{n}.url"), "[[sources.nats]]", error.into()))
        };
        asked.push(ask.boxed());
    }
    for (n, source) in config.sources.kafka.iter().enumerate() {
        let source = source.source();
        let ask = async move {
            let error = kafka::check(&source).await.err()?;
            Some(failed(format!("sources.kafka.{n}.brokers"), "[[sources.kafka]]", error.into()))
        };
        asked.push(ask.boxed());
    }
    let (netboxes, armises) = (config.sources.netbox.len(), config.sources.armis.len());
    let keys = (0..netboxes).map(|n| (format!("sources.netbox.{n}.url"), "[[sources.netbox]]"));
    let keys = keys.chain((0..armises).map(|n| (format!("sources.armis.{n}.url"), "[[sources.armis]]")));
    for ((key, section), inventory) in keys.zip(config.sources.inventories()) {
        let ask = async move {
            let error = pull::check(&inventory).await.err()?;
            Some(failed(key, section, error.into()))
        };
        asked.push(ask.boxed());
    }
    if let Some(mail) = &config.mail
        && let Ok(mailer) = Mailer::new(&mail.smtp, &mail.from)
    {
        let ask = async move {
            let error = mailer.check().await.err()?;
            Some(failed("mail.smtp".to_owned(), "[mail]", error.into()))
        };
        asked.push(ask.boxed());
    }
    join_all(asked).await.into_iter().flatten().collect()
}

//! What people state through the API: writes a second, when they are visible, files that are applied, and what standing
//! resources cost a restart. Goals: 1,000 writes a second, visible in p50 150 ms, 10,000 applied in under 5 s.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cases::program::{Measured, Program};

/// Clients that write at once.
const CLIENTS: usize = 200;
/// Writes, all told.
const WRITES: usize = 10_000;
/// Resources of one set of operations: as many users as a tenant may have.
const APPLIED: usize = 10_000;

pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let ours = Measured::all()?.pop().context("a program")?;
    runtime.block_on(measure(&ours))
}

fn group(id: &str, n: usize) -> Value {
    json!({"type": "device_groups", "id": id, "attributes": {"condition": format!("hostname:h{n}")}})
}

async fn measure(measured: &Measured) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let program = measured.start(dir.path(), "")?;
    let token = program.token.clone().context("a first start prints a token")?;
    writes(&program, &token).await?;
    applied(&program, &token).await?;
    drop(program);
    let started = Instant::now();
    let few = measured.start(dir.path(), "")?;
    let few_took = started.elapsed();
    drop(few);

    let before = Instant::now();
    let dir = tempfile::tempdir()?;
    let program = measured.start(dir.path(), "")?;
    let token = program.token.clone().context("a first start prints a token")?;
    let client = reqwest::Client::new();
    applied(&program, &token).await?;
    let filled = before.elapsed();
    snapshot(&client, &program, &token).await?;
    drop(program);
    let started = Instant::now();
    let program = measured.start(dir.path(), "")?;
    let many_took = started.elapsed();
    drop(program);
    let told = format!(
        "{:.2} s; with few {:.2} s (filled in {:.1} s)",
        many_took.as_secs_f64(),
        few_took.as_secs_f64(),
        filled.as_secs_f64()
    );
    crate::figure("resources: restart with 10,000 users, out of a snapshot", &told)
}

async fn snapshot(client: &reqwest::Client, program: &Program, token: &str) -> Result<()> {
    let request = client.post(format!("{}/api/snapshot", program.http)).bearer_auth(token).json(&json!({}));
    anyhow::ensure!(request.send().await?.status().is_success(), "a snapshot is refused");
    // It is written on a thread of its own.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

async fn post(client: &reqwest::Client, program: &Program, token: &str, path: &str, body: &Value) -> Result<Value> {
    let request = client.post(format!("{}/api/v2/{path}", program.http)).bearer_auth(token);
    let request = request.header("Content-Type", "application/vnd.api+json").body(body.to_string());
    let response = request.send().await?;
    let status = response.status();
    let answer: Value = response.json().await?;
    anyhow::ensure!(status.is_success(), "{status}: {answer}");
    Ok(answer)
}

/// Single writes by many clients; each is visible when it is answered.
async fn writes(program: &Program, token: &str) -> Result<()> {
    let client = reqwest::Client::new();
    // Of a thousand that a tenant may have: written over and over.
    let setup: Vec<Value> = (0..500).map(|n| json!({"op": "add", "data": group(&format!("g{n}"), n)})).collect();
    post(&client, program, token, "operations", &json!({"atomic:operations": setup})).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let clients = (0..CLIENTS).map(|_| {
        let (client, next, http, token) = (client.clone(), next.clone(), program.http.clone(), token.to_owned());
        tokio::spawn(async move {
            let mut took = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= WRITES {
                    return Ok::<_, anyhow::Error>(took);
                }
                let change = json!({"data": {"type": "device_groups", "attributes": {"description": n.to_string()}}});
                let asked = Instant::now();
                let request = client.patch(format!("{http}/api/v2/device_groups/g{}", n % 500)).bearer_auth(&token);
                let request = request.header("Content-Type", "application/vnd.api+json").body(change.to_string());
                let status = request.send().await?.status();
                anyhow::ensure!(status.is_success(), "{status}");
                took.push(asked.elapsed());
            }
        })
    });
    let mut took = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        took.extend(client.await??);
    }
    crate::rate("resources: writes by 200 clients", WRITES, started.elapsed())?;
    took.sort();
    let at = |share: f64| took[(took.len() as f64 * share) as usize].as_secs_f64() * 1000.0;
    crate::figure("resources: a write visible", &format!("p50 {:.0} ms, p99 {:.0} ms", at(0.5), at(0.99)))
}

/// Many in one frame.
async fn applied(program: &Program, token: &str) -> Result<()> {
    let client = reqwest::Client::new();
    let user = |n: usize| {
        let attributes = json!({"role": "viewer", "display_name": format!("person {n}")});
        json!({"op": "add", "data": {"type": "users", "id": format!("user{n}"), "attributes": attributes}})
    };
    let operations = json!({"atomic:operations": (0..APPLIED).map(user).collect::<Vec<_>>()});
    let started = Instant::now();
    post(&client, program, token, "operations", &operations).await?;
    crate::rate("resources: 10,000 applied in one frame", APPLIED, started.elapsed())
}

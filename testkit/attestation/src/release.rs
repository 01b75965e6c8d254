//! One full release: evidence in, wrapped key out, over TLS, with its entry in the log on SQLite before the answer.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ah_evidence::{Evidence, ReportData, Tee};
use ah_release_api::policy::{LOCAL_AUTHORITY, SOFTWARE_TEE};
use ah_release_api::{
    Challenge, GuestKey, KeyId, ReleaseRequest, Request, Response, RuntimeData, Seed,
};
use ah_testkit_figures::{Row, percentile};
use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Client, Method};
use serde_json::json;

use crate::keyservice::{Running, Site};
use crate::{Machine, host_data};

/// Connections at the same time.
const CONNECTIONS: usize = 16;
/// Releases of the run at full load, and of the one at half load.
const RELEASES: usize = 3200;

pub(crate) async fn measure(program: &Path, machine: &Machine, json: bool) -> Result<()> {
    let site = Site::new(program, Some(machine.tee.root_der()))?;
    let mut running = site.start()?;
    let client = running.client()?;
    import(&running, &client).await?;
    let full = at_full_load(&running, prepared(&running, machine).await?).await?;
    let mut times = at_rate(&running, prepared(&running, machine).await?, full / 2.0).await?;
    let (p50, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    running.kill()?;
    let entries = logged(&site).await?;
    // The import has one too.
    let expected = 2 * RELEASES + 1;
    ensure!(
        entries == expected,
        "after SIGKILL the log has {entries} entries, expected {expected}"
    );
    // The goal is for two cores; how many this machine has is said.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let name = format!("full release over TLS, SQLite, {cores} cores");
    let rows = [
        (name.as_str(), full, "1/s", ("at least 500/s on two cores", full >= 500.0)),
        ("the same at half that load, median", p50, "ms", ("none", true)),
        ("the same at half that load, p99", p99, "ms", ("under 20 ms", p99 < 20.0)),
    ];
    for (name, value, unit, goal) in rows {
        let goal = (goal.0 != "none").then_some(goal);
        Row { name, value, unit, reference: None, goal }.print(json);
    }
    Ok(())
}

fn key_id() -> Result<KeyId> {
    Ok("bench".parse()?)
}

async fn import(running: &Running, client: &Client) -> Result<()> {
    let policy = json!({"version": "1.0.0", "anyOf": [{"authority": LOCAL_AUTHORITY, "allOf": [
        {"claim": "x-anchorhold-tee", "equals": SOFTWARE_TEE},
        {"claim": "x-ms-sevsnpvm-hostdata", "equals": hex::encode(host_data().as_bytes())},
        {"claim": "x-ms-sevsnpvm-is-debuggable", "equals": "false"}]}]});
    let body = json!({
        "key": {"kty": "oct", "k": URL_SAFE_NO_PAD.encode([7; 32])},
        "attributes": {"exportable": true},
        "release_policy": {"data": URL_SAFE_NO_PAD.encode(policy.to_string())},
    });
    let path = "/keys/bench?api-version=7.4";
    running.ask(client, Method::PUT, path, Some(&body)).await.map(drop)
}

/// Requests for challenges that the service just gave, with their reports: what a guest does before it asks.
async fn prepared(running: &Running, machine: &Machine) -> Result<Vec<Vec<u8>>> {
    let client = running.client()?;
    let mut all = Vec::with_capacity(RELEASES);
    let public_key = GuestKey::from_seed(&Seed::new([42; 32])).public();
    for _ in 0..RELEASES {
        let url = format!("{}/v1/challenge", running.url);
        let challenge: Challenge = client.post(url).send().await?.json().await?;
        let data = RuntimeData { nonce: challenge.nonce, key_id: key_id()?, public_key };
        let runtime_data = data.to_bytes();
        let report_data = ReportData::for_runtime_data(&runtime_data);
        let made = machine.guest.report(report_data.as_bytes())?;
        let evidence = Evidence {
            tee: Tee::Software,
            report: made.report.as_bytes().to_vec(),
            auxblob: made.auxblob,
            runtime_data,
            initdata: None,
        };
        let request = ReleaseRequest { key_id: key_id()?, evidence };
        all.push(Request::Release(Box::new(request)).to_json()?);
    }
    Ok(all)
}

async fn release(client: &Client, url: &str, request: Vec<u8>) -> Result<()> {
    let answer = client.post(url).body(request).send().await?.bytes().await?;
    match Response::from_json(&answer)? {
        Response::Released(_) => Ok(()),
        other => anyhow::bail!("not released: {other:?}"),
    }
}

/// Releases a second, each connection asking as soon as it is answered.
async fn at_full_load(running: &Running, requests: Vec<Vec<u8>>) -> Result<f64> {
    let url = format!("{}/v1/release", running.url);
    let mut requests = requests.into_iter();
    let mut tasks = Vec::new();
    let start = Instant::now();
    for _ in 0..CONNECTIONS {
        let part: Vec<_> = requests.by_ref().take(RELEASES / CONNECTIONS).collect();
        let (client, url) = (running.client()?, url.clone());
        tasks.push(tokio::spawn(async move {
            for request in part {
                release(&client, &url, request).await?;
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(RELEASES as f64 / start.elapsed().as_secs_f64())
}

/// Milliseconds from the moment at which each request was due, however busy service and client were then.
async fn at_rate(running: &Running, requests: Vec<Vec<u8>>, rate: f64) -> Result<Vec<f64>> {
    let url: Arc<str> = format!("{}/v1/release", running.url).into();
    let client = running.client()?;
    // Connections are opened before the time is taken.
    let warm = (0..CONNECTIONS).map(|_| client.get(format!("{}/healthz", running.url)).send());
    let warm: Vec<_> = warm.map(tokio::spawn).collect();
    for one in warm {
        one.await??;
    }
    let start = Instant::now();
    let mut tasks = Vec::new();
    for (number, request) in requests.into_iter().enumerate() {
        let due = start + Duration::from_secs_f64(number as f64 / rate);
        tokio::time::sleep_until(due.into()).await;
        let (client, url) = (client.clone(), url.clone());
        tasks.push(tokio::spawn(async move {
            release(&client, &url, request).await?;
            anyhow::Ok(due.elapsed().as_secs_f64() * 1000.0)
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.push(task.await??);
    }
    Ok(times)
}

/// Entries of the log after a new start.
async fn logged(site: &Site) -> Result<usize> {
    let running = site.start()?;
    let client = running.client()?;
    let head = running.ask(&client, Method::GET, "/v1/log/head", None).await?;
    let size = head["size"].as_u64().context("the head has no size")?;
    Ok(usize::try_from(size)?)
}

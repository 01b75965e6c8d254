//! From a shim's event to the endpoint's text.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ah_metrics::{Address, Event, Metrics, Sender, Span, collect, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

async fn asked(path: &std::path::Path, request: &str) -> String {
    let Ok(mut stream) = UnixStream::connect(path).await else { return String::new() };
    let text = format!("{request} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn events_are_counted_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (events, http) = (folder.path().join("events"), folder.path().join("made/http"));
    let sender = Sender::new(&events);
    let denied = Event::Denied { method: "ExecProcess".into() };
    // Nobody listens yet: nothing waits, nothing is counted.
    sender.send(&denied);
    let metrics = Arc::new(Metrics::default());
    let (counted, path) = (Arc::clone(&metrics), events.clone());
    let (give, spans) = std::sync::mpsc::channel();
    let hand_on = move |span| give.send(span).unwrap();
    tokio::spawn(async move { collect(&path, counted, hand_on).await.unwrap() });
    let address = Address::Unix(http.clone());
    tokio::spawn(async move { serve(&address, metrics).await.unwrap() });
    let begun = Instant::now();
    while !(events.exists() && asked(&http, "GET /metrics").await.starts_with("HTTP/1.1 200")) {
        assert!(begun.elapsed() < Duration::from_secs(30), "no endpoint");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sender.send(&denied);
    let other = std::os::unix::net::UnixDatagram::unbound().unwrap();
    other.send_to(b"{\"denied\":{\"method\":\"X\",\"more\":1}}", &events).unwrap();
    other.send_to(&[b'x'; 2049], &events).unwrap();
    let span = Span {
        at: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
        above: None,
        name: "Create".into(),
        subject: "sandbox".into(),
        begin: 1,
        end: 2,
        error: None,
    };
    // as long as one gets: all of it fits into an event
    let longest = Span { above: Some(span.at.clone()), ..span }.failed(Some("\u{1}".repeat(9999)));
    sender.send(&Event::Span(longest.clone()));
    sender.send(&denied);
    loop {
        let text = asked(&http, "GET /metrics").await;
        if text.contains("anchorhold_policy_denials_total{method=\"ExecProcess\"} 2\n")
            && text.contains("anchorhold_events_refused_total 2\n")
        {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(spans.try_iter().collect::<Vec<_>>(), [longest]);
    assert!(asked(&http, "POST /metrics").await.starts_with("HTTP/1.1 405"));
    assert!(asked(&http, "GET /").await.starts_with("HTTP/1.1 404"));
}

//! How registries are reached: tokens, passwords, waits, redirects, mirrors, broken downloads.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ah_registry::{FactsCache, Images, Places, RegistryError, RemoteError, TemporaryFiles};
use ah_testkit_images::{Entry, ImageSpec, LayerSpec, LayoutBuilder, Packing};

#[derive(Debug, Clone)]
struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

#[derive(Default)]
struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Bytes after which the connection ends.
    cut: Option<usize>,
}

fn status(status: u16) -> Response {
    Response { status, ..Response::default() }
}

impl Response {
    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A server on loopback that remembers what it was asked.
struct Server {
    host: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (asked, answer) = (Arc::default(), Arc::new(answer));
        let remembered: Arc<Mutex<Vec<Request>>> = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, remembered) = (Arc::clone(&answer), Arc::clone(&remembered));
                std::thread::spawn(move || serve(stream, &*answer, &remembered));
            }
        });
        Self { host, asked }
    }

    fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }
}

/// One request for each connection (RFC 9112).
fn serve(
    mut stream: TcpStream,
    answer: &dyn Fn(&Request) -> Response,
    asked: &Mutex<Vec<Request>>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = Request { method, path, headers, body: String::from_utf8(body).ok()? };
    asked.lock().unwrap().push(request.clone());
    let response = answer(&request);
    let mut head = format!(
        "HTTP/1.1 {} -\r\nContent-Length: {}\r\nConnection: close\r\n",
        response.status,
        response.body.len()
    );
    for (name, value) in &response.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let sent = response.cut.unwrap_or(response.body.len());
    // a client that went away is the test's own business
    stream
        .write_all((head + "\r\n").as_bytes())
        .and_then(|()| stream.write_all(&response.body[..sent]))
        .ok()
}

/// What a registry with one image answers, by path.
fn image() -> Arc<BTreeMap<String, Vec<u8>>> {
    let folder = tempfile::tempdir().unwrap();
    let mut builder = LayoutBuilder::create(folder.path()).unwrap();
    let files = [Entry::file("etc/passwd", "app:x:7:8::/:\n"), Entry::file("a", vec![7; 90_000])];
    let image = ImageSpec::default().with_layer(LayerSpec::of(Packing::Plain, files));
    let built = builder.add("app:1", &image).unwrap();
    let mut contents = BTreeMap::new();
    for entry in fs::read_dir(folder.path().join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let digest = format!("sha256:{}", path.file_name().unwrap().to_str().unwrap());
        let body = fs::read(&path).unwrap();
        if digest == built.manifest_digest.to_oci() {
            contents.insert("/v2/team/app/manifests/1".into(), body.clone());
            contents.insert(format!("/v2/team/app/manifests/{digest}"), body);
        } else {
            contents.insert(format!("/v2/team/app/blobs/{digest}"), body);
        }
    }
    Arc::new(contents)
}

fn found(contents: &BTreeMap<String, Vec<u8>>, path: &str) -> Response {
    let path = path.split('?').next().unwrap();
    match contents.get(path) {
        Some(body) => Response { body: body.clone(), ..status(200) },
        None => status(404),
    }
}

/// Asks a server for everything of its image; gives its first user's id.
async fn pull(server: &Server, places: Places) -> Result<i64, RegistryError> {
    pull_as(&format!("{}/team/app:1", server.host), server, places).await
}

async fn pull_as(name: &str, server: &Server, places: Places) -> Result<i64, RegistryError> {
    let images = Images::open(&Places { plain_http: vec![server.host.clone()], ..places })?;
    let image = images.resolve(name).await?;
    let facts = images.facts(&image, Arc::new(TemporaryFiles)).await?;
    Ok(facts.accounts.passwd.unwrap()[0].uid)
}

fn remote(error: RegistryError) -> RemoteError {
    match error {
        RegistryError::Registry { source, .. } => *source,
        other => panic!("{other:?}"),
    }
}

/// A file as `docker login` writes it.
fn auth_file(folder: &tempfile::TempDir, host: &str, entry: &str) -> Places {
    let path = folder.path().join("config.json");
    fs::write(&path, format!("{{\"auths\":{{\"{host}\":{entry}}}}}")).unwrap();
    Places { auth_file: Some(path), ..Places::default() }
}

/// A registry that wants a token, and its token service on the same server.
fn with_tokens(accepts: fn(&Request) -> bool) -> Server {
    let (contents, own) = (image(), Arc::new(Mutex::new(String::new())));
    let host = Arc::clone(&own);
    let server = Server::start(move |request| {
        if request.path.starts_with("/token") {
            return match accepts(request) {
                true => Response { body: b"{\"token\":\"t0k\"}".to_vec(), ..status(200) },
                false => status(401),
            };
        }
        match request.header("authorization") {
            "Bearer t0k" => found(&contents, &request.path),
            _ => {
                let realm = format!("http://{}/token", host.lock().unwrap());
                status(401)
                    .header("WWW-Authenticate", format!("Bearer realm=\"{realm}\",service=\"s v\""))
            }
        }
    });
    own.lock().unwrap().clone_from(&server.host);
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_had_with_nothing_with_a_password_and_with_an_identity_token() {
    let folder = tempfile::tempdir().unwrap();
    let server = with_tokens(|request| request.header("authorization").is_empty());
    let places = auth_file(&folder, "other", "{}");
    assert_eq!(pull(&server, places).await.unwrap(), 7);
    let tokens: Vec<_> =
        server.asked().into_iter().filter(|request| request.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1, "one token serves all of a repository");
    assert_eq!(tokens[0].path, "/token?service=s+v&scope=repository%3Ateam%2Fapp%3Apull");

    // base64 of user:password
    let server =
        with_tokens(|request| request.header("authorization") == "Basic dXNlcjpwYXNzd29yZA==");
    let places = auth_file(&folder, &server.host, "{\"auth\":\"dXNlcjpwYXNzd29yZA==\"}");
    assert_eq!(pull(&server, places).await.unwrap(), 7);

    let server = with_tokens(|request| {
        let form = "grant_type=refresh_token&client_id=anchorhold&service=s+v&\
                    scope=repository%3Ateam%2Fapp%3Apull&refresh_token=id+1";
        request.method == "POST" && request.body == form
    });
    let places = auth_file(&folder, &server.host, "{\"identitytoken\":\"id 1\"}");
    assert_eq!(pull(&server, places).await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_was_tried() {
    let folder = tempfile::tempdir().unwrap();
    let server = with_tokens(|_| false);
    let entry = "{\"auth\":\"dXNlcjpwYXNzd29yZA==\"}";
    for (host, tried) in [("other", "no credentials"), (&server.host, "user \"user\"")] {
        let places = auth_file(&folder, host, entry);
        let error = remote(pull(&server, places).await.unwrap_err());
        assert!(matches!(error, RemoteError::Denied { status: 401, .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(tried) && !text.contains("password"), "{text}");
        assert!(error.hint("r").contains("docker login r"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_sent_where_it_is_asked_for() {
    let (contents, folder) = (image(), tempfile::tempdir().unwrap());
    let server = Server::start(move |request| match request.header("authorization") {
        "Basic dXNlcjpwYXNzd29yZA==" => found(&contents, &request.path),
        "" => status(401).header("WWW-Authenticate", "Basic realm=\"r\""),
        other => panic!("{other}"),
    });
    let places = auth_file(&folder, &server.host, "{\"auth\":\"dXNlcjpwYXNzd29yZA==\"}");
    assert_eq!(pull(&server, places).await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_credentials_do_not_follow_a_redirect_to_another_host() {
    let (contents, folder) = (image(), tempfile::tempdir().unwrap());
    let layers = Arc::clone(&contents);
    let elsewhere = Server::start(move |request| found(&layers, &request.path));
    let to = elsewhere.host.clone();
    let server = Server::start(move |request| match request.header("authorization") {
        "" => status(401).header("WWW-Authenticate", "Basic realm=\"r\""),
        _ if request.path.contains("/blobs/") => {
            status(307).header("Location", format!("http://{to}{}?signature=secret", request.path))
        }
        _ => found(&contents, &request.path),
    });
    let places = auth_file(&folder, &server.host, "{\"auth\":\"dXNlcjpwYXNzd29yZA==\"}");
    assert_eq!(pull(&server, places).await.unwrap(), 7);
    let asked = elsewhere.asked();
    assert!(asked.len() == 2 && asked.iter().all(|r| r.header("authorization").is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_a_redirect_in_a_circle_ends() {
    let server = Server::start(|request| status(302).header("Location", request.path.clone()));
    let error = remote(pull(&server, Places::default()).await.unwrap_err());
    assert!(matches!(error, RemoteError::Elsewhere { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_registry_is_asked_again_and_a_long_wait_is_told() {
    let (contents, count) = (image(), Mutex::new(0));
    let server = Server::start(move |request| {
        let mut count = count.lock().unwrap();
        *count += 1;
        match *count {
            1 | 3 => status(429).header("Retry-After", "0"),
            5 => status(503).header("Retry-After", "0"),
            _ => found(&contents, &request.path),
        }
    });
    assert_eq!(pull(&server, Places::default()).await.unwrap(), 7);
    let server = Server::start(|_| status(429).header("Retry-After", "3600"));
    let error = remote(pull(&server, Places::default()).await.unwrap_err());
    assert!(matches!(error, RemoteError::Limited { wait, .. } if wait.as_secs() == 3600));
    assert_eq!(server.asked().len(), 1);
    let server = Server::start(|_| status(503).header("Retry-After", "0"));
    let error = remote(pull(&server, Places::default()).await.unwrap_err());
    assert!(matches!(error, RemoteError::Status { status: 503, attempts: 5, .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_breaks_off_goes_on_where_it_was() {
    let contents = image();
    let server = Server::start(move |request| {
        let whole = found(&contents, &request.path);
        let length = whole.body.len();
        match request.header("range").strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')) {
            None if length > 50_000 => Response { cut: Some(40_000), ..whole },
            None => whole,
            Some(from) => {
                let from: usize = from.parse().unwrap();
                let range = format!("bytes {from}-{}/{length}", length - 1);
                let body = whole.body[from..].to_vec();
                Response { body, ..status(206) }.header("Content-Range", range)
            }
        }
    });
    assert_eq!(pull(&server, Places::default()).await.unwrap(), 7);
    assert!(server.asked().iter().any(|request| !request.header("range").is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_is_asked_first_and_the_registry_when_it_fails() {
    let contents = image();
    let good = Server::start({
        let contents = Arc::clone(&contents);
        move |request| found(&contents, &request.path)
    });
    let bad = Server::start(|_| status(404));
    let folder = tempfile::tempdir().unwrap();
    let hosts = |registry: &str, mirror: &str| {
        let own = folder.path().join(registry);
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("hosts.toml"), format!("[host.\"http://{mirror}\"]\n")).unwrap();
    };
    let places = || Places {
        registry_folders: vec![folder.path().into()],
        plain_http: vec![good.host.clone(), bad.host.clone()],
        ..Places::default()
    };
    // the mirror has it; the registry, which is nowhere, is not asked
    hosts("registry.invalid", &good.host);
    let pulled = pull_as("registry.invalid/team/app:1", &good, places()).await;
    assert_eq!(pulled.unwrap(), 7);
    assert!(good.asked().iter().all(|request| request.path.ends_with("?ns=registry.invalid")));
    // the mirror has nothing
    hosts(&good.host, &bad.host);
    let images = Images::open(&places()).unwrap();
    assert!(images.resolve(&format!("{}/team/app:1", good.host)).await.is_ok());
    assert!(!bad.asked().is_empty());
    // neither has it
    let error = images.resolve(&format!("{}/team/app:2", good.host)).await.err().unwrap();
    assert!(matches!(remote(error), RemoteError::Mirrors { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_once_needs_no_network_when_it_is_pinned() {
    let contents = image();
    let digest =
        contents.keys().find_map(|path| path.strip_prefix("/v2/team/app/manifests/sha256:"));
    let digest = digest.unwrap().to_owned();
    let server = Server::start(move |request| found(&contents, &request.path));
    let cache = tempfile::tempdir().unwrap();
    let places = |offline| Places {
        plain_http: vec![server.host.clone()],
        cache: Some(cache.path().into()),
        offline,
        ..Places::default()
    };
    let facts = async |offline, name: String| {
        let images = Images::open(&places(offline))?;
        let image = images.resolve(&name).await?;
        images.facts(&image, Arc::new(FactsCache::open(cache.path())?)).await
    };
    let pinned = format!("{}/team/app@sha256:{digest}", server.host);
    let offline = facts(true, pinned.clone()).await.unwrap_err();
    assert!(matches!(offline, RegistryError::Offline { .. }));
    assert!(offline.hint().unwrap().contains("--lock"));
    let first = facts(false, format!("{}/team/app:1", server.host)).await.unwrap();
    let asked = server.asked().len();
    assert_eq!(facts(false, pinned.clone()).await.unwrap(), first);
    assert_eq!(facts(true, pinned).await.unwrap(), first);
    assert_eq!(server.asked().len(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_a_ca_file_without_a_certificate_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    fs::write(&file, "nothing").unwrap();
    let places = Places { ca: vec![PathBuf::from(&file)], ..Places::default() };
    let images = Images::open(&places).unwrap();
    let error = remote(images.resolve("registry.invalid/a:1").await.err().unwrap());
    assert!(matches!(&error, RemoteError::Configuration { path, .. } if path.ends_with("ca.pem")));
}

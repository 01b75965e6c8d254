//! The vault's routes, as clients of Azure Key Vault and Managed HSM call them (REST API 7.4).

use std::sync::Arc;

use ah_keyservice::{
    Event, KeyChange, KeyInfo, KeyType, Material, NewKey, OnExisting, SystemEnvironment,
    TokenRequest, VaultError, WrapAlgorithm, attributes, bundle,
};
use axum::extract::{Path, State};
use axum::routing::{get, patch, post, put};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};

use crate::app::{App, CallerName, Shared, json_error, page};
use crate::error::ApiError;
use crate::own_routes::bytes;
use crate::vault_bodies::{
    Asked, AskedQuery, AttributesBody, Body, CreateBody, ImportBody, PolicyBody, ReleaseBody,
    UpdateBody, asked, key_id, material,
};

/// Most keys of one page, and as many as come when nobody says.
const PAGE: u32 = 25;

pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/keys", get(list))
        .route("/keys/{name}", put(import).get(show).patch(update).delete(delete))
        .route("/keys/{name}/", get(show))
        .route("/keys/{name}/create", post(create))
        .route("/keys/{name}/rotate", post(rotate))
        .route("/keys/{name}/versions", get(versions))
        .route("/keys/{name}/release", post(release))
        .route("/keys/{name}//release", post(release))
        .route("/keys/{name}/{version}", get(show_version).merge(patch(update_version)))
        .route("/keys/{name}/{version}/release", post(release_version))
}

type Answer = Result<Json<Value>, ApiError>;

async fn import(
    State(app): Shared,
    Path(name): Path<String>,
    Extension(CallerName(caller)): Extension<CallerName>,
    query: AskedQuery,
    body: Body,
) -> Answer {
    asked(query)?;
    let body: ImportBody =
        serde_json::from_slice(&bytes(body)?).map_err(|error| json_error(&error))?;
    let (kty, key) = body.key()?;
    let key = new_key(
        &name,
        kty,
        Material::from_jwk(kty.family, key).map_err(material)?,
        body.ops()?,
        body.attributes.unwrap_or_default(),
        body.release_policy,
    )?;
    let info =
        app.service.put(key, Event::Import, OnExisting::AddVersion, caller.as_deref()).await?;
    Ok(Json(bundle(&info, &app.url)))
}

async fn create(
    State(app): Shared,
    Path(name): Path<String>,
    Extension(CallerName(caller)): Extension<CallerName>,
    query: AskedQuery,
    body: Body,
) -> Answer {
    asked(query)?;
    let body: CreateBody =
        serde_json::from_slice(&bytes(body)?).map_err(|error| json_error(&error))?;
    let (kty, shape) = body.shape()?;
    // An RSA key takes a second at times: other requests do not wait for it.
    let made = tokio::task::spawn_blocking(move || {
        Material::generate(kty.family, &shape, &SystemEnvironment)
    })
    .await;
    let made = made.map_err(|error| ApiError::internal(&error))?.map_err(material)?;
    let key = new_key(
        &name,
        kty,
        made,
        body.key_ops,
        body.attributes.unwrap_or_default(),
        body.release_policy,
    )?;
    let info =
        app.service.put(key, Event::Create, OnExisting::AddVersion, caller.as_deref()).await?;
    Ok(Json(bundle(&info, &app.url)))
}

fn new_key(
    name: &str,
    kty: KeyType,
    material: Material,
    ops: Option<Vec<String>>,
    attributes: AttributesBody,
    policy: Option<PolicyBody>,
) -> Result<NewKey, ApiError> {
    Ok(NewKey {
        id: key_id(name)?,
        kty,
        material,
        ops: ops.unwrap_or_default(),
        enabled: attributes.enabled.unwrap_or(true),
        exportable: attributes.exportable.unwrap_or(false),
        not_before_s: attributes.nbf,
        expires_s: attributes.exp,
        rule: policy.map(|policy| policy.rule()).transpose()?,
    })
}

async fn rotate(
    State(app): Shared,
    Path(name): Path<String>,
    Extension(CallerName(caller)): Extension<CallerName>,
    query: AskedQuery,
) -> Answer {
    asked(query)?;
    let info = app.service.rotate(&key_id(&name)?, caller.as_deref()).await?;
    Ok(Json(bundle(&info, &app.url)))
}

async fn show(State(app): Shared, Path(name): Path<String>, query: AskedQuery) -> Answer {
    asked(query)?;
    Ok(Json(bundle(&app.service.info(&key_id(&name)?, None).await?, &app.url)))
}

async fn show_version(
    State(app): Shared,
    Path((name, version)): Path<(String, String)>,
    query: AskedQuery,
) -> Answer {
    asked(query)?;
    Ok(Json(bundle(&app.service.info(&key_id(&name)?, Some(&version)).await?, &app.url)))
}

async fn list(State(app): Shared, query: AskedQuery) -> Answer {
    let asked = asked(query)?;
    let limit = page_size(&asked)?;
    let after = asked.skip.as_deref().unwrap_or_default();
    let keys = whole(app.service.page(after, limit + 1).await?)?;
    let item = |key: &KeyInfo| json!({ "kid": format!("{}/keys/{}", app.url, key.id), "attributes": attributes(key) });
    let next = |key: &KeyInfo| key.id.to_string();
    Ok(paged(&app, "/keys", &asked, limit, &keys, item, next))
}

async fn versions(State(app): Shared, Path(name): Path<String>, query: AskedQuery) -> Answer {
    let asked = asked(query)?;
    let limit = page_size(&asked)?;
    let after = asked.skip.as_deref().unwrap_or("0").parse();
    let after = after.map_err(|_| ApiError::bad("$skiptoken is none of this service's"))?;
    let keys = whole(app.service.versions(&key_id(&name)?, after, limit + 1).await?)?;
    if keys.is_empty() && after == 0 {
        return Err(ah_keyservice::ServiceError::from(VaultError::NotFound(name)).into());
    }
    let kid = |key: &KeyInfo| format!("{}/keys/{}/{}", app.url, key.id, key.version);
    let item = |key: &KeyInfo| json!({ "kid": kid(key), "attributes": attributes(key) });
    let next = |key: &KeyInfo| key.ordinal.to_string();
    Ok(paged(&app, &format!("/keys/{name}/versions"), &asked, limit, &keys, item, next))
}

fn page_size(asked: &Asked) -> Result<u32, ApiError> {
    match asked.maxresults.unwrap_or(PAGE) {
        size @ 1..=PAGE => Ok(size),
        found => Err(ApiError::bad(format!("maxresults is {found}, expected 1 to {PAGE}"))),
    }
}

/// One row that was altered spoils the page: a list that leaves keys out without a word would be worse.
fn whole(keys: Vec<Result<KeyInfo, VaultError>>) -> Result<Vec<KeyInfo>, ApiError> {
    let keys: Result<_, VaultError> = keys.into_iter().collect();
    Ok(keys.map_err(ah_keyservice::ServiceError::from)?)
}

fn paged(
    app: &App,
    path: &str,
    asked: &Asked,
    limit: u32,
    keys: &[KeyInfo],
    item: impl Fn(&KeyInfo) -> Value,
    next: impl Fn(&KeyInfo) -> String,
) -> Json<Value> {
    let shown = keys.get(..limit as usize).unwrap_or(keys);
    let version = asked.api_version.as_deref().unwrap_or_default();
    let more = shown.last().filter(|_| keys.len() > shown.len()).map(|last| {
        // A name of several segments has slashes, which a query string may carry as they are (RFC 3986 section 3.4).
        let (url, skip) = (&app.url, next(last));
        format!("{url}{path}?api-version={version}&maxresults={limit}&$skiptoken={skip}")
    });
    page(shown.iter().map(item).collect(), more)
}

async fn update(
    State(app): Shared,
    Path(name): Path<String>,
    Extension(CallerName(caller)): Extension<CallerName>,
    query: AskedQuery,
    body: Body,
) -> Answer {
    change(&app, &name, None, caller.as_deref(), query, body).await
}

async fn update_version(
    State(app): Shared,
    Path((name, version)): Path<(String, String)>,
    Extension(CallerName(caller)): Extension<CallerName>,
    query: AskedQuery,
    body: Body,
) -> Answer {
    change(&app, &name, Some(&version), caller.as_deref(), query, body).await
}

async fn change(
    app: &App,
    name: &str,
    version: Option<&str>,
    caller: Option<&str>,
    query: AskedQuery,
    body: Body,
) -> Answer {
    asked(query)?;
    let body: UpdateBody =
        serde_json::from_slice(&bytes(body)?).map_err(|error| json_error(&error))?;
    body.check()?;
    let attributes = body.attributes.unwrap_or_default();
    let id = key_id(name)?;
    // Clients that change a key send back all that they know of it.
    if let Some(exportable) = attributes.exportable
        && app.service.info(&id, version).await?.attributes.exportable != exportable
    {
        return Err(ApiError::bad(
            "exportable is decided when a key is made, and cannot be changed",
        ));
    }
    let change = KeyChange {
        enabled: attributes.enabled,
        ops: body.key_ops,
        not_before_s: attributes.nbf,
        expires_s: attributes.exp,
        rule: body.release_policy.map(|policy| policy.rule()).transpose()?,
    };
    let info = app.service.update(&id, version, &change, caller).await?;
    Ok(Json(bundle(&info, &app.url)))
}

async fn delete(
    State(app): Shared,
    Path(name): Path<String>,
    Extension(CallerName(caller)): Extension<CallerName>,
    query: AskedQuery,
) -> Answer {
    asked(query)?;
    let id = key_id(&name)?;
    let info = app.service.info(&id, None).await?;
    app.service.delete_by(&id, caller.as_deref()).await?;
    Ok(Json(bundle(&info, &app.url)))
}

async fn release(
    State(app): Shared,
    Path(name): Path<String>,
    Extension(CallerName(caller)): Extension<CallerName>,
    query: AskedQuery,
    body: Body,
) -> Answer {
    give(&app, &name, None, caller.as_deref(), query, body).await
}

async fn release_version(
    State(app): Shared,
    Path((name, version)): Path<(String, String)>,
    Extension(CallerName(caller)): Extension<CallerName>,
    query: AskedQuery,
    body: Body,
) -> Answer {
    give(&app, &name, Some(&version), caller.as_deref(), query, body).await
}

async fn give(
    app: &App,
    name: &str,
    version: Option<&str>,
    caller: Option<&str>,
    query: AskedQuery,
    body: Body,
) -> Answer {
    let asked = asked(query)?;
    let body: ReleaseBody =
        serde_json::from_slice(&bytes(body)?).map_err(|error| json_error(&error))?;
    let algorithm = match body.enc.as_deref() {
        None => WrapAlgorithm::default(),
        Some(name) => WrapAlgorithm::named(name).ok_or_else(|| {
            ApiError::bad("enc is unknown: expected CKM_RSA_AES_KEY_WRAP, RSA_AES_KEY_WRAP_256 or RSA_AES_KEY_WRAP_384")
        })?,
    };
    let request = TokenRequest {
        id: &key_id(name)?,
        version,
        token: &body.target,
        algorithm,
        nonce: body.nonce.as_deref(),
        api_version: asked.api_version.as_deref().unwrap_or_default(),
        base_url: &app.url,
        caller,
    };
    let value =
        app.service.release_by_token(&request, app.attestation.as_ref(), &app.signer).await?;
    Ok(Json(json!({ "value": value })))
}

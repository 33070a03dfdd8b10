//! The order of a start, and what runs side by side.

use crate::args::Options;
use crate::fault::ExitAfterWrites;
use crate::lease::Leadership;
use crate::{admin, crds, endpoint};
use anyhow::Context as _;
use kube::Client;
use kube::client::ClientBuilder;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use weft_controllers::shared::context::Context;
use weft_controllers::shared::errors::Backoffs;
use weft_controllers::shared::events::Events;
use weft_controllers::shared::keys::Keys;
use weft_controllers::shared::links::Links;
use weft_controllers::{attachments, drives, fabric, pools, slices, volumes};

/// For giving the lease up at the end.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until it is told to stop or loses the lease.
pub async fn run(options: Box<Options>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let fault = ExitAfterWrites::default();
    let client = client(&fault).await?;
    let shared = admin::Shared::default();
    let armable = ExitAfterWrites::wanted().then_some(fault);
    let routes = admin::routes(shared.clone(), armable);
    let admin = serve_admin(&options, routes).await?;
    crds::check(&client).await?;
    shared.checked();
    let mut leadership = Leadership::new(&client, &options.namespace, options.holder());
    tokio::select! {
        () = leadership.acquire() => {}
        _ = terminate.recv() => return Ok(()),
    }
    // The start of a leader may take long where the API server is slow: renew meanwhile.
    let mut work = tokio::select! {
        () = leadership.keep() => std::process::exit(1),
        work = lead(&options, client, &shared) => work?,
    };
    work.spawn(admin);
    tokio::select! {
        // Nothing may be written without the lease: the process ends, whatever is under way.
        () = leadership.keep() => std::process::exit(1),
        Some(ended) = work.join_next() => {
            ended.context("a part of the operator broke down")?.context("a part of the operator ended")?;
            anyhow::bail!("a part of the operator ended")
        }
        _ = terminate.recv() => {}
    }
    work.shutdown().await;
    // A courtesy to the next operator, not to be waited for where the API server is away.
    let _ = tokio::time::timeout(RELEASE_TIMEOUT, leadership.release()).await;
    Ok(())
}

/// Talks to the cluster of the kubeconfig or of the pod.
pub async fn client(fault: &ExitAfterWrites) -> anyhow::Result<Client> {
    let config = kube::Config::infer()
        .await
        .context("no cluster: neither a kubeconfig nor a service account was found")?;
    let builder =
        ClientBuilder::try_from(config).context("the cluster's configuration cannot be used")?;
    Ok(builder.with_layer(fault).build())
}

async fn serve_admin(
    options: &Options,
    routes: axum::Router,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + use<>> {
    let address = SocketAddr::new(options.any_address(), options.admin_port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(async move { Ok(serving.await.context("the admin server broke down")??) })
}

/// What only the holder of the lease does.
async fn lead(
    options: &Options,
    client: Client,
    shared: &admin::Shared,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let fabric = fabric::apply::ensure(&client).await?;
    let keys = Keys::load(&client, &options.drives_namespace).await?;
    let listen = SocketAddr::new(options.any_address(), fabric.ports.operator);
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    let push_address = push_address(options, &client, fabric.ports.operator).await?;
    tracing::info!(cluster = %fabric.cluster, push_address, "leads");
    let context = Arc::new(Context {
        settings: options.settings(push_address),
        links: Links::new(keys.operator.clone()),
        events: Events::new(client.clone(), &options.holder()),
        backoffs: Backoffs::default(),
        client,
        fabric,
        keys,
    });
    shared.leading(context.clone());
    let mut work = JoinSet::new();
    let pushes = context.clone();
    work.spawn(async move {
        let handler = Arc::new(pushes.links.clone());
        weft_control::server::serve(listener, &pushes.keys.operator, handler).await?;
        Ok(())
    });
    controllers(&context, &mut work);
    Ok(work)
}

fn controllers(context: &Arc<Context>, work: &mut JoinSet<anyhow::Result<()>>) {
    macro_rules! start {
        ($($kind:ident),*) => {$(
            let context_of_kind = context.clone();
            work.spawn(async move {
                $kind::run(context_of_kind).await;
                Ok(())
            });
        )*};
    }
    start!(fabric, drives, pools, volumes, slices, attachments);
}

/// Where pods push to; with the Service, this process becomes its endpoint.
async fn push_address(options: &Options, client: &Client, port: u16) -> anyhow::Result<String> {
    if let Some(address) = &options.push_address {
        return Ok(address.clone());
    }
    let me = options
        .address
        .context("POD_IP is not set: set it to the pod's address, or give --push-address")?;
    let service = endpoint::service(client, &options.namespace).await?;
    endpoint::publish(client, &options.namespace, SocketAddr::new(me, port)).await?;
    Ok(service)
}

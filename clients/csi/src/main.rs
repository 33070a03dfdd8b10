//! `weft-csi`: the CSI controller plugin, the node plugin, and the probe of either.

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use futures::{FutureExt, StreamExt};
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;
use weft_csi::attachments::Attachments;
use weft_csi::controller::Controller;
use weft_csi::identity::Identity;
use weft_csi::node::connect_kernel::KernelInitiator;
use weft_csi::node::{Node, follow};
use weft_csi::registration::Registration;
use weft_csi::server::{Socket, socket_path};
use weft_csi_proto::controller_server::ControllerServer;
use weft_csi_proto::identity_server::IdentityServer;
use weft_csi_proto::node_server::NodeServer;
use weft_csi_proto::registration::registration_server::RegistrationServer;

/// The CSI driver csi.weft.storage.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Unix socket of the CSI services.
    #[arg(
        long,
        env = "CSI_ENDPOINT",
        default_value = "unix:///csi/csi.sock",
        global = true
    )]
    endpoint: String,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the Controller service.
    Controller,
    /// Serves the Node service and registers it with the kubelet.
    Node(NodeArguments),
    /// Asks the plugin on the socket whether it answers.
    Probe,
}

#[derive(Args)]
struct NodeArguments {
    /// Name of this node's Node object.
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// Path of the CSI socket as the kubelet sees it.
    #[arg(
        long,
        env = "KUBELET_ENDPOINT",
        default_value = "/var/lib/kubelet/plugins/csi.weft.storage/csi.sock"
    )]
    kubelet_endpoint: String,
    /// Socket by which the kubelet finds the plugin.
    #[arg(
        long,
        env = "REGISTRATION_SOCKET",
        default_value = "/registration/csi.weft.storage-reg.sock"
    )]
    registration_socket: PathBuf,
    /// Where the pods of user-space initiators mount their directories.
    #[arg(
        long,
        env = "ATTACHMENTS_ROOT",
        default_value = "/var/lib/weft/attachments"
    )]
    attachments_root: PathBuf,
    /// Namespace of the Secrets with hosts' names.
    #[arg(long, env = "SECRETS_NAMESPACE", default_value = "weft-system")]
    secrets_namespace: String,
}

// One thread for what answers: the work is done by the kernel, on threads that may wait.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .init();
    let socket = socket_path(&arguments.endpoint)
        .with_context(|| format!("{:?} is not a unix socket", arguments.endpoint))?;
    match arguments.command {
        Command::Probe => weft_csi::liveness::probe(&socket).await,
        Command::Controller => {
            let client = kube::Client::try_default()
                .await
                .context("no way to the API server")?;
            let controller = ControllerServer::new(Controller::new(&client));
            let services = Server::builder()
                .add_service(IdentityServer::new(Identity))
                .add_service(controller);
            let stop = CancellationToken::new();
            stop_on_signal(&stop)?;
            serve(services, socket, stop).await
        }
        Command::Node(node) => serve_node(node, socket).await,
    }
}

async fn serve_node(arguments: NodeArguments, socket: PathBuf) -> anyhow::Result<()> {
    let client = kube::Client::try_default()
        .await
        .context("no way to the API server")?;
    let (attachments, changes) =
        Attachments::new(&client, &arguments.node_name, &arguments.secrets_namespace);
    let stop = CancellationToken::new();
    stop_on_signal(&stop)?;
    tokio::spawn(report_initiator(attachments.clone()));
    let node = Node::new(attachments, arguments.attachments_root);
    tokio::spawn(follow(node.clone(), changes));
    let services = Server::builder()
        .add_service(IdentityServer::new(Identity))
        .add_service(NodeServer::new(node));
    let registration = Registration::new(arguments.kubelet_endpoint);
    let registration = Server::builder().add_service(RegistrationServer::new(registration));
    // When one of them cannot go on, the other must not pretend.
    let both = tokio::try_join!(
        serve(services, socket, stop.clone()),
        serve_registration(registration, arguments.registration_socket, stop),
    );
    both.map(drop)
}

/// Serves until told to stop, and lets calls under way end.
async fn serve(services: Router, path: PathBuf, stop: CancellationToken) -> anyhow::Result<()> {
    let shown = path.display().to_string();
    let mut socket = Socket::bind(&path).with_context(|| format!("cannot listen on {shown}"))?;
    tracing::info!(socket = shown, "serving");
    let incoming = socket.incoming()?;
    services
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned().map(drop))
        .await
        .with_context(|| format!("cannot serve on {shown}"))
}

/// The same for the kubelet's plugin watcher, whose requests must be mended first.
async fn serve_registration(
    services: Router,
    path: PathBuf,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let shown = path.display().to_string();
    let mut socket = Socket::bind(&path).with_context(|| format!("cannot listen on {shown}"))?;
    tracing::info!(socket = shown, "serving");
    let incoming = socket
        .incoming()?
        .map(|stream| stream.map(weft_csi::authority::mend));
    services
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned().map(drop))
        .await
        .with_context(|| format!("cannot serve on {shown}"))
}

fn stop_on_signal(stop: &CancellationToken) -> anyhow::Result<()> {
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        tracing::info!("stopping; mounts and connections stay");
        stop.cancel();
    });
    Ok(())
}

/// Tells on the Node whether its kernel has an initiator: at each start, until it is taken.
async fn report_initiator(attachments: Attachments) {
    let usable = tokio::task::spawn_blocking(|| KernelInitiator::default().is_usable());
    let usable = usable.await.unwrap_or(false);
    let mut pause = Duration::from_millis(500);
    while let Err(error) = attachments.label_node(usable).await {
        tracing::warn!(%error, "the node's label is written again soon");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(30));
    }
    tracing::info!(nvme_tcp = usable, "kernel initiator");
}

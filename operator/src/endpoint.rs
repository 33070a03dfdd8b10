//! Where pods find the operator: the address of the Service `weft-operator`, behind which the
//! holder of the lease writes its own as the only endpoint.

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::api::ObjectMeta;
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use weft_controllers::shared::apply;
use weft_controllers::shared::labels::PART_OF;

/// Name of the Service and of its EndpointSlice.
const NAME: &str = "weft-operator";
/// Name of the Service's port.
const PORT: &str = "control";

/// `address:port` of the Service.
pub async fn service(client: &Client, namespace: &str) -> anyhow::Result<String> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let service = services.get(NAME).await.with_context(|| {
        format!(
            "cannot read Service {namespace}/{NAME}; the chart makes it, or give --push-address"
        )
    })?;
    let spec = service.spec.unwrap_or_default();
    let address = spec
        .cluster_ip
        .as_deref()
        .and_then(|ip| ip.parse::<IpAddr>().ok());
    let mut ports = spec.ports.iter().flatten();
    let port = ports.find(|port| port.name.as_deref().is_none_or(|name| name == PORT));
    let (Some(address), Some(port)) = (address, port) else {
        bail!(
            "Service {namespace}/{NAME} needs a cluster IP and a port named {PORT}: install it as the chart has it"
        );
    };
    let port = u16::try_from(port.port).context("the Service's port is no port")?;
    Ok(SocketAddr::new(address, port).to_string())
}

/// Makes this process the only endpoint of the Service.
pub async fn publish(client: &Client, namespace: &str, me: SocketAddr) -> anyhow::Result<()> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let wanted = slice(me);
    let current = slices
        .get_opt(NAME)
        .await
        .context("cannot read the EndpointSlice")?;
    // The family of an EndpointSlice cannot be changed.
    if let Some(other) = current
        .as_ref()
        .filter(|slice| slice.address_type != wanted.address_type)
    {
        apply::delete(&slices, other).await?;
    }
    apply::apply(&slices, current.as_ref(), &wanted).await?;
    Ok(())
}

fn slice(me: SocketAddr) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some(BTreeMap::from([
                ("kubernetes.io/service-name".to_owned(), NAME.to_owned()),
                (
                    "endpointslice.kubernetes.io/managed-by".to_owned(),
                    "weft-operator".to_owned(),
                ),
                (PART_OF.0.to_owned(), PART_OF.1.to_owned()),
            ])),
            ..ObjectMeta::default()
        },
        address_type: if me.is_ipv6() { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: vec![Endpoint {
            addresses: vec![me.ip().to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                ..EndpointConditions::default()
            }),
            ..Endpoint::default()
        }],
        ports: Some(vec![EndpointPort {
            name: Some(PORT.to_owned()),
            port: Some(i32::from(me.port())),
            protocol: Some("TCP".to_owned()),
            ..EndpointPort::default()
        }]),
    }
}

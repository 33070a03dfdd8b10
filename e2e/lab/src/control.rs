//! etcd, the API server, the controller manager and the scheduler.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::network;
use crate::paths::Paths;
use crate::process::{self, Process};
use crate::sandbox::Sandbox;
use crate::topology::{CONTROL_IP, SERVICE_CIDR};

/// The network namespace of the control plane.
const NETWORK: &str = "cp";

/// In the order in which they must end: an API server whose etcd is gone ignores SIGTERM, and
/// the controllers would only fill their logs.
const PROGRAMS: [&str; 4] = [
    "kube-controller-manager",
    "kube-scheduler",
    "kube-apiserver",
    "etcd",
];

/// The control plane of a lab, which can be taken away and brought back.
#[derive(Debug)]
pub struct Control<'a> {
    pub(crate) paths: &'a Paths,
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) fast_timers: bool,
}

impl Control<'_> {
    /// Starts what does not run, and waits until the API server says that it is ready.
    pub fn start(&self) -> Result<()> {
        network::control(self.sandbox)?;
        self.begin()?;
        self.wait_ready()?;
        self.controllers()
    }

    /// Starts etcd and the API server without waiting.
    pub(crate) fn begin(&self) -> Result<()> {
        self.ensure("etcd", self.etcd())?;
        self.ensure("kube-apiserver", self.apiserver())
    }

    /// Waits for the API server.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        process::wait("the API server", Duration::from_secs(120), || {
            Ok(self.ready().then_some(()))
        })
        .with_context(|| format!("see {}", self.log("kube-apiserver").display()))
    }

    /// Starts the controllers: only now, for before the API server has made its first roles the
    /// controller manager exits at once, and no pod could ever start.
    pub(crate) fn controllers(&self) -> Result<()> {
        self.ensure("kube-controller-manager", self.controller_manager())?;
        self.ensure("kube-scheduler", self.scheduler())
    }

    /// Ends all four at once, as if the machine with the control plane had lost its power.
    pub fn stop(&self) -> Result<()> {
        for program in PROGRAMS {
            if let Some(found) = self.find(program) {
                process::kill_and_wait(found.pid, Duration::from_secs(10))?;
            }
        }
        Ok(())
    }

    /// Whether the API server answers and all four run.
    pub fn running(&self) -> bool {
        PROGRAMS.iter().all(|program| self.find(program).is_some()) && self.ready()
    }

    /// The programs that run, with their process numbers.
    pub(crate) fn programs(&self) -> Vec<(&'static str, Option<i32>)> {
        let mut list: Vec<_> = PROGRAMS
            .iter()
            .map(|program| (*program, self.find(program).map(|p| p.pid)))
            .collect();
        list.reverse();
        list
    }

    fn ready(&self) -> bool {
        let kubectl = self.paths.bin().join("kubectl");
        process::run(
            self.sandbox
                .net_command(kubectl)
                .arg("--kubeconfig")
                .arg(self.paths.kubeconfig())
                .args(["--request-timeout=2s", "get", "--raw", "/readyz"]),
        )
        .is_ok()
    }

    fn find(&self, program: &str) -> Option<Process> {
        let path = self.program(program);
        process::tree(self.sandbox.pid())
            .into_iter()
            .find(|p| p.runs(&[&path]))
    }

    fn ensure(&self, program: &str, args: Vec<String>) -> Result<()> {
        if self.find(program).is_some() {
            return Ok(());
        }
        let mut argv = vec![self.program(program)];
        argv.extend(args);
        self.sandbox
            .spawn(Some(NETWORK), &self.log(program), &argv)
            .with_context(|| format!("cannot start {program}"))
    }

    fn program(&self, name: &str) -> String {
        self.paths.bin().join(name).to_string_lossy().into_owned()
    }

    fn log(&self, program: &str) -> PathBuf {
        self.paths.logs().join(format!("{program}.log"))
    }

    fn pki(&self, file: &str) -> String {
        self.paths.pki().join(file).to_string_lossy().into_owned()
    }

    fn etcd(&self) -> Vec<String> {
        vec![
            flag(
                "data-dir",
                self.paths.state().join("etcd").to_string_lossy(),
            ),
            // The lab's data need not outlive the machine.
            "--unsafe-no-fsync".to_owned(),
            flag("listen-client-urls", "http://127.0.0.1:2379"),
            flag("advertise-client-urls", "http://127.0.0.1:2379"),
            flag("listen-peer-urls", "http://127.0.0.1:2380"),
            flag("log-level", "warn"),
        ]
    }

    fn apiserver(&self) -> Vec<String> {
        let mut args = vec![
            flag("etcd-servers", "http://127.0.0.1:2379"),
            flag("bind-address", "0.0.0.0"),
            flag("advertise-address", CONTROL_IP),
            flag("secure-port", "6443"),
            flag("client-ca-file", self.pki("ca.crt")),
            flag("tls-cert-file", self.pki("apiserver.crt")),
            flag("tls-private-key-file", self.pki("apiserver.key")),
            flag("service-account-key-file", self.pki("service-account.pub")),
            flag(
                "service-account-signing-key-file",
                self.pki("service-account.key"),
            ),
            flag(
                "service-account-issuer",
                "https://kubernetes.default.svc.cluster.local",
            ),
            flag("service-cluster-ip-range", SERVICE_CIDR),
            flag("authorization-mode", "Node,RBAC"),
            flag("enable-admission-plugins", "NodeRestriction"),
            flag("allow-privileged", "true"),
            flag(
                "kubelet-client-certificate",
                self.pki("apiserver-kubelet-client.crt"),
            ),
            flag(
                "kubelet-client-key",
                self.pki("apiserver-kubelet-client.key"),
            ),
            flag("kubelet-certificate-authority", self.pki("ca.crt")),
            flag("kubelet-preferred-address-types", "InternalIP"),
        ];
        if self.fast_timers {
            args.push(flag("default-not-ready-toleration-seconds", "10"));
            args.push(flag("default-unreachable-toleration-seconds", "10"));
        }
        args
    }

    fn controller_manager(&self) -> Vec<String> {
        let mut args = self.controller("controller-manager");
        args.extend([
            flag(
                "service-account-private-key-file",
                self.pki("service-account.key"),
            ),
            flag("root-ca-file", self.pki("ca.crt")),
            flag("cluster-signing-cert-file", self.pki("ca.crt")),
            flag("cluster-signing-key-file", self.pki("ca.key")),
            flag("use-service-account-credentials", "true"),
            flag("allocate-node-cidrs", "false"),
        ]);
        if self.fast_timers {
            args.push(flag("node-monitor-period", "1s"));
            args.push(flag("node-monitor-grace-period", "8s"));
        }
        args
    }

    fn scheduler(&self) -> Vec<String> {
        self.controller("scheduler")
    }

    fn controller(&self, file: &str) -> Vec<String> {
        let kubeconfig = self.pki(&format!("{file}.kubeconfig"));
        vec![
            flag("kubeconfig", &kubeconfig),
            flag("authentication-kubeconfig", &kubeconfig),
            flag("authorization-kubeconfig", &kubeconfig),
            flag("authentication-tolerate-lookup-failure", "true"),
            flag("leader-elect", "false"),
            flag("bind-address", "127.0.0.1"),
            // With the default of 20 requests a second the first service account takes 11 s.
            flag("kube-api-qps", "500"),
            flag("kube-api-burst", "1000"),
        ]
    }
}

fn flag(name: &str, value: impl AsRef<str>) -> String {
    format!("--{name}={}", value.as_ref())
}

use super::*;

const NQN: &str = "nqn.2026-11.storage.weft:volume:6f0c52d0-0000-4000-8000-000000000001";
const UUID: Uuid = Uuid::from_u128(0x6f0c_52d0_0000_4000_8000_0000_0000_0001);

fn target(address: &str) -> Target {
    Target {
        address: address.parse().unwrap(),
        subsystem: NQN.to_owned(),
        volume: UUID,
        host: HostNqn::from_wire("nqn.2026-11.storage.weft:host:a:b:1:tag"),
        host_id: Uuid::from_u128(9),
    }
}

/// A sysfs with one subsystem, one controller and one device, as Linux 6.12 shows them.
fn kernel() -> (tempfile::TempDir, KernelInitiator) {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let controller = "sys/class/nvme/nvme3/";
    write(&format!("{controller}subsysnqn"), &format!("{NQN}\n"));
    let address = "traddr=10.1.2.3,trsvcid=4420,src_addr=172.30.4.2\n";
    write(&format!("{controller}address"), address);
    write(&format!("{controller}state"), "live\n");
    write(&format!("{controller}delete_controller"), "");
    write(&format!("{controller}nvme3c3n1/uuid"), &format!("{UUID}\n"));
    let subsystem = "sys/class/nvme-subsystem/nvme-subsys3/";
    write(&format!("{subsystem}subsysnqn"), &format!("{NQN}\n"));
    write(&format!("{subsystem}nvme3n1/uuid"), &format!("{UUID}\n"));
    write("dev/nvme3n1", "");
    write("dev/nvme-fabrics", "");
    let initiator = KernelInitiator {
        sys: root.path().join("sys"),
        dev: root.path().join("dev"),
        patience: Duration::from_millis(50),
    };
    (root, initiator)
}

#[test]
fn the_option_string_is_what_the_kernel_reads() {
    let expected = format!(
        "transport=tcp,traddr=fd00::1,trsvcid=4420,nqn={NQN},\
         hostnqn=nqn.2026-11.storage.weft:host:a:b:1:tag,\
         hostid=00000000-0000-0000-0000-000000000009,nr_io_queues=1,keep_alive_tmo=5,\
         reconnect_delay=1,ctrl_loss_tmo=-1"
    );
    assert_eq!(options(&target("[fd00::1]:4420")).unwrap(), expected);
}

#[test]
fn a_name_with_a_comma_adds_no_option() {
    let mut evil = target("10.0.0.1:1");
    evil.subsystem = "a,duplicate_connect".to_owned();
    assert!(matches!(options(&evil), Err(KernelError::Malformed(_))));
}

#[test]
fn a_volume_is_found_by_subsystem_and_uuid() {
    let (_root, kernel) = kernel();
    assert_eq!(kernel.device(NQN, UUID).as_deref(), Some("nvme3n1"));
    assert_eq!(kernel.device(NQN, Uuid::from_u128(1)), None);
    assert_eq!(kernel.device("other", UUID), None);
    let node = kernel.wait_for_device(&target("10.1.2.3:4420")).unwrap();
    assert!(node.ends_with("dev/nvme3n1"));
}

#[test]
fn a_controller_tells_its_addresses() {
    let (_root, kernel) = kernel();
    let expected = Controller {
        name: "nvme3".to_owned(),
        address: Some("10.1.2.3:4420".parse().unwrap()),
        source: Some("172.30.4.2".to_owned()),
        live: true,
    };
    assert_eq!(kernel.controllers(NQN), [expected]);
    assert_eq!(kernel.controllers("other"), []);
}

#[test]
fn a_connect_to_where_a_controller_is_writes_nothing() {
    let (root, kernel) = kernel();
    kernel.connect(&target("10.1.2.3:4420")).unwrap();
    let written = || std::fs::read_to_string(root.path().join("dev/nvme-fabrics")).unwrap();
    assert_eq!(written(), "");
    assert!(!kernel.follow(&target("10.1.2.3:4420")).unwrap());
    kernel.connect(&target("10.1.2.4:4420")).unwrap();
    assert!(written().starts_with("transport=tcp,traddr=10.1.2.4,trsvcid=4420,"));
}

#[test]
fn a_deleted_controller_is_written_to_and_a_missing_one_is_no_error() {
    let (root, kernel) = kernel();
    let controller = kernel.controllers(NQN).remove(0);
    kernel.delete(&controller).unwrap();
    let file = root.path().join("sys/class/nvme/nvme3/delete_controller");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "1");
    kernel
        .delete(&Controller {
            name: "nvme9".to_owned(),
            ..controller
        })
        .unwrap();
}

#[test]
fn an_old_path_goes_only_when_the_new_one_belongs_to_the_device() {
    let (root, kernel) = kernel();
    let write = |path: &str, text: &str| {
        let path = root.path().join("sys/class/nvme/nvme4").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("subsysnqn", NQN);
    write(
        "address",
        "traddr=10.1.2.4,trsvcid=4420,src_addr=172.30.4.2",
    );
    write("state", "live");
    let deleted = || {
        let file = root.path().join("sys/class/nvme/nvme3/delete_controller");
        std::fs::read_to_string(file).unwrap()
    };
    let new = target("10.1.2.4:4420");
    for stranger in ["nvme3c4n1/uuid", "nvme4n1/uuid"] {
        assert!(matches!(
            kernel.follow(&new),
            Err(KernelError::NoPath { .. })
        ));
        assert_eq!(deleted(), "");
        write(stranger, &Uuid::from_u128(1).to_string());
    }
    write("nvme3c4n1/uuid", &UUID.to_string());
    write("state", "connecting");
    assert!(matches!(
        kernel.follow(&new),
        Err(KernelError::NoPath { .. })
    ));
    write("state", "live");
    assert!(kernel.follow(&new).unwrap());
    assert_eq!(deleted(), "1");
}

#[test]
fn a_node_without_the_device_has_no_initiator() {
    let root = tempfile::tempdir().unwrap();
    let kernel = KernelInitiator {
        sys: root.path().into(),
        dev: root.path().into(),
        patience: SCAN,
    };
    assert!(!kernel.is_usable());
    let error = kernel.connect(&target("10.0.0.1:1")).unwrap_err();
    assert!(error.to_string().contains("nvme-tcp"), "{error}");
}

#[test]
fn only_whole_devices_count() {
    let table = [
        ("nvme0n1", true),
        ("nvme12n34", true),
        ("nvme0c0n1", false),
        ("nvme0", false),
    ];
    for (name, expected) in table {
        assert_eq!(is_device(Path::new(name)), expected, "{name}");
        assert_eq!(is_path(Path::new(name)), name == "nvme0c0n1", "{name}");
    }
}

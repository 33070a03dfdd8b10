# What runs on every node, namespaces or guest; sourced by the node's first process.

# Runs a program for ever.
keep() {
    local name=$1
    shift
    while :; do
        "$@" >>"/var/log/$name.log" 2>&1 || true
        echo "lab: $name ended, it is started again" >>"/var/log/$name.log"
        sleep 0.3
    done &
}

# Waits until containerd answers: a socket that merely exists can be a stale one, and a kubelet
# that meets no runtime ends at once.
await_containerd() {
    local i
    for i in $(seq 600); do
        if ctr version >/dev/null 2>&1; then
            return 0
        fi
        sleep 0.1
    done
    echo "lab: containerd does not answer" >&2
    return 1
}

# Imports archives that this node has not seen yet in this form.
import_images() {
    local archive stamp
    mkdir -p /var/lib/containerd/lab-imported
    for archive in "$1"/*.tar; do
        [ -e "$archive" ] || continue
        stamp=/var/lib/containerd/lab-imported/$(basename "$archive").$(stat -c %Y-%s "$archive")
        [ -e "$stamp" ] && continue
        ctr -n k8s.io images import "$archive" >>/var/log/images.log 2>&1 || return 1
        # A guest loses what is not on its disk with its power, and containerd does not sync what
        # it unpacks: an empty program would be left. Other nodes keep the machine's page cache.
        [ ! -e /dev/ubda ] || sync --file-system /var/lib/containerd
        : >"$stamp"
    done
}

# $1: node, $2: state directory
services() {
    local node=$1 state=$2 dir=$2/nodes/$1 ip
    ip=$(ip -4 -o addr show scope global | awk 'NR == 1 { sub("/.*", "", $4); print $4 }')
    keep containerd containerd -c "$dir/config/containerd.toml"
    await_containerd
    import_images "$state/images" || echo "lab: an image could not be imported" >&2
    keep kubelet kubelet --config="$dir/config/kubelet.json" \
        --kubeconfig="$state/pki/$node.kubeconfig" \
        --hostname-override="$node" --node-ip="$ip" --root-dir=/var/lib/kubelet \
        --node-labels="$(cat "$dir/config/labels")"
    keep kube-proxy kube-proxy --config="$dir/config/kube-proxy.json"
    : >/run/lab-ready
}

//! What the lab looks like now.

use crate::lab::Lab;

/// A picture of the lab for a person.
pub fn status(lab: &Lab) -> String {
    let mut text = String::new();
    for (program, pid) in lab.control().programs() {
        text.push_str(&format!("{program:26} {pid:?}\n"));
    }
    for node in lab.nodes() {
        text.push_str(&format!("{:5} {:?}\n", node.spec.name, node.pid()));
    }
    text
}

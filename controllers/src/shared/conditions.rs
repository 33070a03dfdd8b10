//! Conditions: the one place where they are written, so that a pass that finds nothing new
//! changes nothing.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The three values a condition has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Truth {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// It cannot be told.
    Unknown,
}

impl Truth {
    /// As the API spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(is: bool) -> Self {
        if is { Self::True } else { Self::False }
    }
}

/// Sets one condition. The time of transition changes only when its status does.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    truth: Truth,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let mut condition = Condition {
        type_: kind.to_owned(),
        status: truth.as_str().to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: Time(whole_second(now)),
    };
    match conditions.iter_mut().find(|old| old.type_ == kind) {
        Some(old) => {
            if old.status == condition.status {
                condition.last_transition_time = old.last_transition_time.clone();
            }
            *old = condition;
        }
        None => {
            conditions.push(condition);
            conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        }
    }
}

/// Takes one condition away.
pub fn clear(conditions: &mut Vec<Condition>, kind: &str) {
    conditions.retain(|condition| condition.type_ != kind);
}

/// The condition of that type.
pub fn get<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition of that type is True.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    get(conditions, kind).is_some_and(|condition| condition.status == "True")
}

/// The API keeps whole seconds; a finer time would differ from what is read back.
pub fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_time_of_transition_changes_only_with_the_status() {
        let mut conditions = Vec::new();
        set(
            &mut conditions,
            "Ready",
            Truth::False,
            "PodPending",
            "waits",
            Some(1),
            at(10),
        );
        set(
            &mut conditions,
            "Ready",
            Truth::False,
            "ForeignData",
            "no",
            Some(2),
            at(20),
        );
        let ready = get(&conditions, "Ready").unwrap();
        assert_eq!(
            (ready.last_transition_time.0, ready.observed_generation),
            (at(10), Some(2))
        );
        assert_eq!(ready.reason, "ForeignData");
        set(
            &mut conditions,
            "Ready",
            Truth::True,
            "Serving",
            "",
            Some(2),
            at(30),
        );
        assert_eq!(
            get(&conditions, "Ready").unwrap().last_transition_time.0,
            at(30)
        );
        assert!(is_true(&conditions, "Ready"));
    }

    #[test]
    fn conditions_are_kept_in_order_of_their_type() {
        let mut conditions = Vec::new();
        for kind in ["Ready", "Adopted", "Placed"] {
            set(
                &mut conditions,
                kind,
                Truth::Unknown,
                "Unknown",
                "",
                None,
                at(1),
            );
        }
        let kinds: Vec<_> = conditions.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(kinds, ["Adopted", "Placed", "Ready"]);
        clear(&mut conditions, "Placed");
        assert_eq!(conditions.len(), 2);
    }
}

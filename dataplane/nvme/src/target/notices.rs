//! Asynchronous events (Base section 5.2): what a host is told without having asked just now.

use crate::{feature, log};

/// Requests that a host may leave with the controller: AERL is 3, zero-based.
pub(super) const REQUESTS: u8 = 4;
/// Asynchronous Event Type: notice (Base figure 146).
const NOTICE: u64 = 2;

/// Something that a host may want to hear (Base figure 150).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Notice {
    /// Namespace Attribute Changed: the size, here.
    Namespace,
    /// Asymmetric Namespace Access Change.
    Ana,
    /// Discovery Log Page Change.
    Discovery,
}

impl Notice {
    const ALL: [Self; 3] = [Self::Namespace, Self::Ana, Self::Discovery];

    /// Its bit in Set Features 0Bh and in OAES.
    const fn mask(self) -> u32 {
        match self {
            Self::Namespace => feature::NAMESPACE_NOTICE,
            Self::Ana => feature::ANA_NOTICE,
            Self::Discovery => feature::DISCOVERY_NOTICE,
        }
    }

    /// The page to be read then.
    const fn page(self) -> u8 {
        match self {
            Self::Namespace => log::CHANGED_NAMESPACES,
            Self::Ana => log::ANA,
            Self::Discovery => log::DISCOVERY,
        }
    }

    /// Dword 0 of the completion (Base figure 145): log page, information, type.
    pub const fn result(self) -> u64 {
        let information = match self {
            Self::Namespace => 0x00,
            Self::Ana => 0x03,
            Self::Discovery => 0xf0,
        };
        (self.page() as u64) << 16 | information << 8 | NOTICE
    }

    /// The notice that a completion of an Asynchronous Event Request tells, if it is one of these.
    pub fn parse(result: u64) -> Option<Self> {
        const USED: u64 = 0xff_ff07;
        Self::ALL
            .into_iter()
            .find(|notice| notice.result() == result & USED)
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// Requests held, and what there is to tell. A notice is told once until its page has been read:
/// what happens in between is in the page.
#[derive(Debug, Default)]
pub(super) struct Notices {
    held: u8,
    mask: u32,
    due: [bool; 3],
    unread: [bool; 3],
}

impl Notices {
    /// Which notices the host wants.
    pub fn mask(&self) -> u32 {
        self.mask
    }

    pub fn set_mask(&mut self, mask: u32) {
        self.mask = mask;
    }

    /// Takes a request; false if there are as many as are allowed.
    pub fn hold(&mut self) -> bool {
        let room = self.held < REQUESTS;
        self.held += u8::from(room);
        room
    }

    /// Something happened.
    pub fn raise(&mut self, notice: Notice) {
        if let (Some(due), Some(false)) = (
            self.due.get_mut(notice.index()),
            self.unread.get(notice.index()),
        ) {
            *due = true;
        }
    }

    /// The host reads this page, which clears the event (Base section 5.16.1, RAE).
    pub fn read(&mut self, page: u8) {
        for notice in Notice::ALL.into_iter().filter(|n| n.page() == page) {
            if let Some(unread) = self.unread.get_mut(notice.index()) {
                *unread = false;
            }
        }
    }

    /// The next thing to answer a held request with.
    pub fn next(&mut self) -> Option<Notice> {
        if self.held == 0 {
            return None;
        }
        let notice = Notice::ALL.into_iter().find(|notice| {
            self.mask & notice.mask() != 0 && self.due.get(notice.index()) == Some(&true)
        })?;
        self.held -= 1;
        if let (Some(due), Some(unread)) = (
            self.due.get_mut(notice.index()),
            self.unread.get_mut(notice.index()),
        ) {
            (*due, *unread) = (false, true);
        }
        Some(notice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening() -> Notices {
        let mut notices = Notices::default();
        notices.set_mask(feature::EVENTS);
        assert!(notices.hold());
        notices
    }

    #[test]
    fn results_say_type_information_and_page() {
        assert_eq!(Notice::Namespace.result(), 0x04_00_02);
        assert_eq!(Notice::Ana.result(), 0x0c_03_02);
        assert_eq!(Notice::Discovery.result(), 0x70_f0_02);
        assert_eq!(Notice::parse(0x0c_03_02), Some(Notice::Ana));
        assert_eq!(Notice::parse(0x0c_03_01), None);
    }

    #[test]
    fn a_notice_waits_for_a_request_and_is_told_once() {
        let mut notices = Notices::default();
        notices.set_mask(feature::EVENTS);
        notices.raise(Notice::Ana);
        assert_eq!(notices.next(), None, "no request is held");
        assert!(notices.hold());
        assert_eq!(notices.next(), Some(Notice::Ana));
        assert!(notices.hold());
        assert_eq!(notices.next(), None);
    }

    #[test]
    fn what_happens_before_the_page_is_read_is_not_told_again() {
        let mut notices = listening();
        notices.raise(Notice::Namespace);
        assert_eq!(notices.next(), Some(Notice::Namespace));
        assert!(notices.hold());
        notices.raise(Notice::Namespace);
        assert_eq!(notices.next(), None);
        notices.read(log::ANA);
        notices.raise(Notice::Namespace);
        assert_eq!(notices.next(), None, "another page was read");
        notices.read(log::CHANGED_NAMESPACES);
        notices.raise(Notice::Namespace);
        assert_eq!(notices.next(), Some(Notice::Namespace));
    }

    #[test]
    fn what_a_host_does_not_want_is_kept_until_it_does() {
        let mut notices = Notices::default();
        assert!(notices.hold());
        notices.raise(Notice::Ana);
        assert_eq!(notices.next(), None);
        notices.set_mask(feature::ANA_NOTICE);
        assert_eq!(notices.next(), Some(Notice::Ana));
    }

    #[test]
    fn four_requests_are_held_and_no_fifth() {
        let mut notices = Notices::default();
        assert!((0..4).all(|_| notices.hold()));
        assert!(!notices.hold());
    }
}

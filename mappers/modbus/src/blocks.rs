//! Which values are read together in one request. Pure.

use std::collections::BTreeSet;

use crate::address::Sizes;
use crate::visitor::{Span, Table, Visitor};

/// What a device has taught about what can be read together.
#[derive(Debug, Clone)]
pub(crate) struct Learned {
    sizes: Sizes,
    /// They are asked for alone, because a request with them among others failed.
    alone: BTreeSet<Span>,
    /// They were read before, so that a block of them that is refused is too long.
    proved: BTreeSet<Span>,
}

/// One request, and the places of the visitors whose values it brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) table: Table,
    pub(crate) offset: u16,
    pub(crate) count: u16,
    pub(crate) members: Vec<usize>,
}

impl Learned {
    pub(crate) fn new(sizes: Sizes) -> Self {
        Learned { sizes, alone: BTreeSet::new(), proved: BTreeSet::new() }
    }

    /// The request for the first visitor, with all others that come along: neighbours, and those behind gaps that are allowed.
    /// A value is never cut.
    pub(crate) fn block(&self, visitors: &[&Visitor]) -> Option<Block> {
        let first = visitors.first()?;
        let most = self.most(first.table);
        let (mut start, mut end) = (u32::from(first.offset), first.end());
        let mut members = vec![0];
        if !self.alone.contains(&first.span()) {
            let mut others: Vec<(usize, &&Visitor)> = visitors
                .iter()
                .enumerate()
                .skip(1)
                .filter(|(_, other)| other.table == first.table && !self.alone.contains(&other.span()))
                .collect();
            others.sort_by_key(|(_, other)| other.offset);
            // Upwards from the first, then downwards.
            let ascending = others.iter().filter(|(_, other)| other.offset >= first.offset);
            let descending = others.iter().rev().filter(|(_, other)| other.offset < first.offset);
            for (at, other) in ascending.chain(descending) {
                let (low, high) = (start.min(other.offset.into()), end.max(other.end()));
                let gap = u32::from(self.sizes.gap);
                let is_near = u32::from(other.offset) <= end + gap && other.end() + gap >= start;
                if is_near && high - low <= u32::from(most) {
                    (start, end) = (low, high);
                    members.push(*at);
                }
            }
        }
        let count = u16::try_from(end - start).ok()?;
        let offset = u16::try_from(start).ok()?;
        Some(Block { table: first.table, offset, count, members })
    }

    /// A request for these was answered.
    pub(crate) fn answered(&mut self, spans: impl IntoIterator<Item = Span>) {
        for span in spans {
            self.alone.remove(&span);
            self.proved.insert(span);
        }
    }

    /// A request for several was not answered, or it was refused: each is asked for alone from now on. If each was read before,
    /// and this was refused, it was the length that was wrong, or a gap.
    pub(crate) fn failed(&mut self, table: Table, count: u16, spans: &[Span], is_refused: bool) {
        let is_known = spans.iter().all(|span| self.proved.contains(span));
        if !is_known || !is_refused {
            self.alone.extend(spans);
            return;
        }
        if self.sizes.gap > 0 {
            self.sizes.gap = 0;
        } else if table.is_bits() {
            self.sizes.bits = (count / 2).max(1);
        } else {
            self.sizes.registers = (count / 2).max(1);
        }
    }

    fn most(&self, table: Table) -> u16 {
        if table.is_bits() { self.sizes.bits } else { self.sizes.registers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framework::{Kind, Property, Scalar, Settings};

    fn visitor(register: &str, offset: i64, limit: i64) -> Visitor {
        let kind = if register.starts_with('C') { Kind::Int } else { Kind::Text };
        let property = Property::new("p", kind);
        let settings = Settings::from_pairs([
            ("register", Scalar::Text(register.to_owned())),
            ("offset", Scalar::Int(offset)),
            ("limit", Scalar::Int(limit)),
        ]);
        Visitor::read(&property, &settings).unwrap()
    }

    fn holding(offset: i64, limit: i64) -> Visitor {
        visitor("HoldingRegister", offset, limit)
    }

    fn block(learned: &Learned, visitors: &[Visitor]) -> (u16, u16, Vec<usize>) {
        let block = learned.block(&visitors.iter().collect::<Vec<_>>()).unwrap();
        (block.offset, block.count, block.members)
    }

    #[test]
    fn neighbours_are_read_together_and_others_are_not() {
        let learned = Learned::new(Sizes::default());
        let visitors = [
            holding(10, 2),
            holding(14, 1),
            holding(12, 2),
            visitor("InputRegister", 15, 1),
            holding(8, 2),
            holding(16, 1),
        ];
        assert_eq!(block(&learned, &visitors), (8, 7, vec![0, 2, 1, 4]));
        let learned = Learned::new(Sizes { gap: 1, ..Sizes::default() });
        assert_eq!(block(&learned, &visitors), (8, 9, vec![0, 2, 1, 5, 4]));
    }

    #[test]
    fn a_request_is_no_longer_than_the_device_takes_and_cuts_no_value() {
        let learned = Learned::new(Sizes { registers: 5, ..Sizes::default() });
        assert_eq!(block(&learned, &[holding(0, 2), holding(2, 2), holding(4, 2)]), (0, 4, vec![0, 1]));
        assert_eq!(
            block(&learned, &[holding(0, 8), holding(8, 1)]),
            (0, 8, vec![0]),
            "one value is one value"
        );
        let ends = [holding(65_534, 1), holding(65_535, 1)];
        assert_eq!(block(&Learned::new(Sizes::default()), &ends), (65_534, 2, vec![0, 1]));
        let coils = [visitor("CoilRegister", 0, 16), visitor("CoilRegister", 16, 16)];
        assert_eq!(block(&Learned::new(Sizes::default()), &coils), (0, 32, vec![0, 1]));
    }

    #[test]
    fn what_spoils_a_request_is_found_and_left_alone() {
        let mut learned = Learned::new(Sizes::default());
        let visitors = [holding(0, 1), holding(1, 1), holding(2, 1)];
        let spans: Vec<Span> = visitors.iter().map(Visitor::span).collect();
        learned.failed(Table::HoldingRegisters, 3, &spans, true);
        assert_eq!(block(&learned, &visitors), (0, 1, vec![0]));
        // The one in the middle is the bad one.
        learned.answered([spans[0], spans[2]]);
        assert_eq!(block(&learned, &visitors), (0, 1, vec![0]), "there is a hole between them");
        assert_eq!(block(&learned, &[visitors[1].clone(), visitors[0].clone()]), (1, 1, vec![0]));
    }

    #[test]
    fn a_request_for_what_was_read_before_is_too_long() {
        let mut learned = Learned::new(Sizes { gap: 3, ..Sizes::default() });
        let visitors: Vec<Visitor> = (0..8).map(|at| holding(at, 1)).collect();
        let spans: Vec<Span> = visitors.iter().map(Visitor::span).collect();
        learned.answered(spans.clone());
        learned.failed(Table::HoldingRegisters, 8, &spans, true);
        assert_eq!(block(&learned, &visitors).1, 8, "first it may have been a gap");
        learned.failed(Table::HoldingRegisters, 8, &spans, true);
        assert_eq!(block(&learned, &visitors).1, 4);
        learned.failed(Table::HoldingRegisters, 4, &spans[..4], false);
        assert_eq!(block(&learned, &visitors).1, 1, "no answer says nothing about the length");
    }
}

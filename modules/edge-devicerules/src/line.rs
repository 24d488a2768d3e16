//! A line in which each stands once. Pure.

use std::collections::BTreeMap;

/// Those who wait, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Line<T> {
    in_order: BTreeMap<u64, T>,
    places: BTreeMap<T, u64>,
    last: u64,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Line { in_order: BTreeMap::new(), places: BTreeMap::new(), last: 0 }
    }
}

impl<T: Ord + Clone> Line<T> {
    /// Puts one at the end; one who stands in it keeps its place.
    pub(crate) fn join(&mut self, one: &T) {
        if !self.places.contains_key(one) {
            self.last += 1;
            self.places.insert(one.clone(), self.last);
            self.in_order.insert(self.last, one.clone());
        }
    }

    /// Takes one out of it, wherever it stands.
    pub(crate) fn leave(&mut self, one: &T) {
        if let Some(place) = self.places.remove(one) {
            self.in_order.remove(&place);
        }
    }

    /// Who has waited longest.
    pub(crate) fn first(&self) -> Option<&T> {
        self.in_order.values().next()
    }

    /// Takes out who has waited longest.
    pub(crate) fn take(&mut self) -> Option<T> {
        let (_, one) = self.in_order.pop_first()?;
        self.places.remove(&one);
        Some(one)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.in_order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_once_and_in_order() {
        let mut line = Line::default();
        for one in [3, 1, 3, 2] {
            line.join(&one);
        }
        line.leave(&1);
        line.leave(&9);
        assert_eq!((line.first(), line.len()), (Some(&3), 2));
        assert_eq!((line.take(), line.take(), line.take()), (Some(3), Some(2), None));
        line.join(&3);
        assert_eq!(line.take(), Some(3));
    }
}

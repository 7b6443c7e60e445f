//! Which units make a loop, found in the graph of the ways between them.

/// A graph of units: where each leads, by number. Numbers may repeat.
pub(crate) struct Graph {
    /// Guest PCs, all different.
    pub(crate) pcs: Vec<u64>,
    pub(crate) to: Vec<Vec<usize>>,
}

/// Units of a loop, the one that it is entered by first, each before those it leads to but for the
/// ways that close a loop; with weights of how often each is expected to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Loop {
    pub(crate) units: Vec<usize>,
    pub(crate) weights: Vec<u64>,
}

/// How much more often an inner loop runs.
const TURNS: u64 = 8;
/// Most nesting that is told apart.
const DEPTH: u32 = 6;

impl Graph {
    /// The units of the loop that is closed by ways back to `header`: those that reach it again
    /// without passing it. `from` has where each is come to from. Compilers lay out loops so that what closes them goes back.
    fn natural(&self, header: usize, from: &[Vec<usize>]) -> Option<Vec<bool>> {
        let is_behind = |unit: &usize| self.pcs[*unit] >= self.pcs[header];
        let mut work: Vec<usize> = from[header].iter().copied().filter(is_behind).collect();
        if work.is_empty() {
            return None;
        }
        let mut inside = vec![false; self.pcs.len()];
        inside[header] = true;
        while let Some(unit) = work.pop() {
            if std::mem::replace(&mut inside[unit], true) {
                continue;
            }
            work.extend(&from[unit]);
        }
        // Where what closes it is not reached from its beginning, the way is not known: no loop.
        let mut reached = vec![false; self.pcs.len()];
        work.push(header);
        let mut is_closed = false;
        while let Some(unit) = work.pop() {
            for to in self.to[unit].iter().copied().filter(|to| inside[*to]) {
                is_closed |= to == header;
                if to != header && !std::mem::replace(&mut reached[to], true) {
                    work.push(to);
                }
            }
        }
        reached[header] = true;
        is_closed.then_some(reached)
    }

    /// Leaves out all ways to and from others than these units.
    pub(crate) fn keep(&mut self, kept: &[bool]) {
        for (to, is_kept) in self.to.iter_mut().zip(kept) {
            to.retain(|to| *is_kept && kept[*to]);
        }
    }

    /// The smallest loop that a unit is in.
    pub(crate) fn innermost(&self, unit: usize) -> Option<Loop> {
        let mut from = vec![Vec::new(); self.pcs.len()];
        for (unit, to) in self.to.iter().enumerate() {
            to.iter().for_each(|to| from[*to].push(unit));
        }
        let loops: Vec<(usize, Vec<bool>)> = (0..self.pcs.len())
            .filter_map(|header| Some((header, self.natural(header, &from)?)))
            .collect();
        let size = |inside: &[bool]| inside.iter().filter(|is| **is).count();
        let (header, inside) = loops
            .iter()
            .filter(|(_, inside)| inside[unit])
            .min_by_key(|(_, inside)| size(inside))?;
        let units = self.order(*header, inside);
        let depth = |unit: usize| {
            let inner = |(h, is): &&(usize, Vec<bool>)| {
                h != header && is[unit] && size(is) < size(inside) && inside[*h]
            };
            (loops.iter().filter(inner).count() as u32).min(DEPTH)
        };
        let weights = units.iter().map(|unit| TURNS.pow(depth(*unit))).collect();
        Some(Loop { units, weights })
    }

    /// Depth first, backwards: the likely next unit follows at once.
    fn order(&self, header: usize, inside: &[bool]) -> Vec<usize> {
        let mut seen = vec![false; self.pcs.len()];
        let mut done = Vec::new();
        // A unit, and which of its successors is next.
        let mut path = vec![(header, 0)];
        seen[header] = true;
        while let Some((unit, next)) = path.last_mut() {
            let mut to: Vec<usize> = self.to[*unit].clone();
            // What lies nearest behind is looked at last, to come first.
            to.sort_by_key(|t| std::cmp::Reverse(self.pcs[*t].wrapping_sub(self.pcs[*unit])));
            match to.get(*next) {
                Some(t) => {
                    *next += 1;
                    let t = *t;
                    if inside[t] && !std::mem::replace(&mut seen[t], true) {
                        path.push((t, 0));
                    }
                }
                None => {
                    done.push(*unit);
                    path.pop();
                }
            }
        }
        done.reverse();
        done
    }
}

#[cfg(test)]
mod tests {
    use super::{Graph, Loop};

    fn graph(to: &[&[usize]]) -> Graph {
        Graph {
            pcs: (0..to.len() as u64).map(|n| 0x1000 + n * 16).collect(),
            to: to.iter().map(|to| to.to_vec()).collect(),
        }
    }

    #[test]
    fn a_unit_that_leads_to_itself_is_a_loop() {
        let found = graph(&[&[0, 1], &[]]).innermost(0);
        let wanted = Loop {
            units: vec![0],
            weights: vec![1],
        };
        assert_eq!(found, Some(wanted));
    }

    #[test]
    fn straight_code_has_no_loop() {
        assert_eq!(graph(&[&[1], &[2], &[]]).innermost(1), None);
    }

    #[test]
    fn a_loop_that_is_not_closed_from_its_beginning_is_none() {
        // How 0 gets to 1, which leads back to it, is not known.
        assert_eq!(graph(&[&[2], &[0], &[]]).innermost(1), None);
    }

    #[test]
    fn both_arms_belong_to_the_loop_and_the_nearer_comes_first() {
        let found = graph(&[&[2, 1], &[3], &[3], &[0, 4], &[]]).innermost(2);
        let found = found.expect("a loop");
        assert_eq!(found.units[..2], [0, 1]);
        assert_eq!(found.units.last(), Some(&3));
        assert_eq!(found.units.len(), 4);
    }

    #[test]
    fn a_loop_around_another_that_is_entered_elsewhere_is_left_out_with_its_units() {
        // 0 and 1: the inner loop; 3 and 2, which enters it past its header, the outer one.
        let mut graph = graph(&[&[1], &[0, 2], &[3], &[1, 3]]);
        assert_eq!(graph.innermost(0).expect("both").units.len(), 4);
        graph.keep(&[true, true, false, false]);
        assert_eq!(graph.innermost(0).expect("inner").units, [0, 1]);
    }

    #[test]
    fn the_inner_loop_is_found_from_inside_and_weighs_more_from_outside() {
        // 0: outer header; 1: inner loop; 2: closes the outer one.
        let graph = graph(&[&[1], &[1, 2], &[0, 3], &[]]);
        assert_eq!(graph.innermost(1).expect("inner").units, [1]);
        let outer = graph.innermost(2).expect("outer");
        assert_eq!(outer.units, [0, 1, 2]);
        assert_eq!(outer.weights, [1, 8, 1]);
    }
}

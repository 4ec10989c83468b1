//! Tables of what other processes may destroy: nobody tells this one.

use std::collections::HashMap;
use std::hash::Hash;

/// Before a table would have to grow, takes out what `keep` does not want kept; answers whether it has looked.
///
/// A table that is looked at gets room for as many entries again, so that each entry costs a look or two.
pub fn before_growth<K: Eq + Hash, V>(table: &mut HashMap<K, V>, mut keep: impl FnMut(&K, &V) -> bool) -> bool {
    if table.len() < table.capacity() {
        return false;
    }
    table.retain(|key, value| keep(key, value));
    table.reserve(table.len());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_goes_and_each_entry_costs_few_looks() {
        let (mut table, mut looks) = (HashMap::new(), 0);
        for number in 0..100_000 {
            // All but the first hundred and the newest ten are gone.
            let _ = before_growth(&mut table, |key, ()| {
                looks += 1;
                *key < 100 || *key + 10 >= number
            });
            table.insert(number, ());
            assert!(table.len() < 500);
        }
        assert!((0..100).all(|number| table.contains_key(&number)));
        assert!(looks < 300_000, "{looks}");
    }
}

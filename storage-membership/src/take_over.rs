//! The table of an earlier release, which stood among the keys of the clients.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use storage_core::Result;
use storage_embedded::RowChange;

use crate::{
    contents::{LeavingRow, NodeRow},
    ids::ClusterId,
    proof,
    rows::{PREFIX, Rows},
    table::{CLUSTER, Table},
};

impl Table {
    /// Takes over the table of an earlier release, which stood among the keys, once: if this one is empty. The keys are removed then, each
    /// as long as it is what was taken over.
    ///
    /// Rows of nodes, and what replicas were asked, had no proof there. So this is for embedded nodes alone, whose clients cannot make this table
    /// empty again.
    ///
    /// # Errors
    /// Those of the rows. It is taken over or not, and keys may be left, which are the clients' then.
    pub async fn take_over(&self, earlier: &dyn Rows) -> Result<()> {
        let rows = earlier.all(&self.prefix, self.timeout).await?;
        let mut next: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
        let mut proves = false;
        for (full, row) in &rows {
            let Some(name) = self.short(full) else { continue };
            let proven = match name.split_once('/') {
                None if name == CLUSTER => proof::from_json::<EarlierClusterRow>(row)
                    .filter(|row| {
                        let proof = proof::unhex(&row.proof).unwrap_or_default();
                        let stood = format!("{}{}", PREFIX, self.prefix);
                        proves = proof::proves(
                            &self.token,
                            &[b"cluster", stood.as_bytes(), row.id.to_string().as_bytes()],
                            &proof,
                        );
                        proves
                    })
                    .map(|row| self.prove_row(name, &row.id)),
                Some(("node", _)) => proof::from_json::<NodeRow>(row).map(|row| self.prove_row(name, &row)),
                Some(("leaving", _)) => Some(self.prove_row(name, &LeavingRow { leaves: true, number: 1 })),
                // Replicas tell of themselves again, and so does the leader.
                _ => None,
            };
            next.extend(proven.map(|proven| (full.clone(), Some(proven))));
        }
        if !proves {
            return Ok(());
        }
        let expected = [(self.full(CLUSTER), None)].into();
        if self.rows.change(RowChange { expected, next }, self.timeout).await? {
            tracing::info!(rows = rows.len(), "the table of the cluster was taken over from among the keys");
        }
        for (name, row) in rows {
            let removed = RowChange { expected: [(name.clone(), Some(row))].into(), next: [(name, None)].into() };
            earlier.change(removed, self.timeout).await?;
        }
        Ok(())
    }
}

/// The row of the cluster in an earlier release, which had its own proof in it.
#[derive(Deserialize)]
struct EarlierClusterRow {
    id: ClusterId,
    proof: String,
}

//! What a policy remembers about itself: totals, breaker, last clean and reconcile, leases. One row each, people can read.

use crate::sqlite::error_map::Fault;
use engine::ports::catalog::{PolicyState, StateChange, Totals, Trip};
use lifecycle::time::UnixMs;
use rusqlite::{Connection, params};

/// The totals: counted along with every change, exact.
pub(super) fn totals(tx: &Connection) -> Result<Totals, Fault> {
    let mut statement = tx.prepare_cached("SELECT live_keys, active, disowned, bytes FROM totals")?;
    let totals = statement.query_row([], |row| {
        Ok(Totals {
            live_keys: row.get(0)?,
            active: row.get(1)?,
            disowned: row.get(2)?,
            bytes: row.get(3)?,
            estimated: false,
        })
    })?;
    Ok(totals)
}

/// The policy's state.
pub(super) fn state(tx: &Connection) -> Result<PolicyState, Fault> {
    let sql = "SELECT tripped_at, tripped_removed, tripped_live, released_at, cleaned_at, reconciled_at, \
        reconciled_left FROM policy_state";
    let state = tx.prepare_cached(sql)?.query_row([], |row| {
        let moment = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(UnixMs));
        let tripped = match moment(0)? {
            Some(at) => Some(Trip { at, removed: row.get(1)?, live: row.get(2)? }),
            None => None,
        };
        let reconciled = match moment(5)? {
            Some(at) => Some((at, row.get(6)?)),
            None => None,
        };
        Ok(PolicyState { tripped, released_at: moment(3)?, cleaned_at: moment(4)?, reconciled })
    })?;
    Ok(state)
}

/// Changes the policy's state.
pub(super) fn set_state(tx: &Connection, change: StateChange) -> Result<(), Fault> {
    match change {
        StateChange::Trip(Trip { at, removed, live }) => {
            let sql = "UPDATE policy_state SET tripped_at = ?1, tripped_removed = ?2, tripped_live = ?3 \
                WHERE tripped_at IS NULL";
            tx.prepare_cached(sql)?.execute(params![at.0, removed, live])?;
        }
        StateChange::Release(at) => {
            let sql = "UPDATE policy_state SET tripped_at = NULL, tripped_removed = NULL, tripped_live = NULL, \
                released_at = ?1";
            tx.prepare_cached(sql)?.execute([at.0])?;
        }
        StateChange::Cleaned(at) => {
            tx.prepare_cached("UPDATE policy_state SET cleaned_at = ?1")?.execute([at.0])?;
        }
        StateChange::Reconciled(at, left) => {
            let sql = "UPDATE policy_state SET reconciled_at = ?1, reconciled_left = ?2";
            tx.prepare_cached(sql)?.execute(params![at.0, left])?;
        }
    }
    Ok(())
}

/// Takes or renews a lease; whether `holder` has it now.
pub(super) fn lease(tx: &Connection, name: &str, holder: &str, now: UnixMs, until: UnixMs) -> Result<bool, Fault> {
    let sql = "INSERT INTO leases (name, holder, until) VALUES (?1, ?2, ?4) \
        ON CONFLICT DO UPDATE SET holder = excluded.holder, until = excluded.until \
        WHERE leases.holder = excluded.holder OR leases.until <= ?3";
    Ok(tx.prepare_cached(sql)?.execute(params![name, holder, now.0, until.0])? > 0)
}

/// Gives a lease back, if `holder` has it.
pub(super) fn unlease(tx: &Connection, name: &str, holder: &str) -> Result<(), Fault> {
    tx.prepare_cached("DELETE FROM leases WHERE name = ?1 AND holder = ?2")?.execute([name, holder])?;
    Ok(())
}

/// Forgets every lease.
pub(super) fn forget_leases(tx: &Connection) -> Result<(), Fault> {
    tx.prepare_cached("DELETE FROM leases")?.execute([])?;
    Ok(())
}

//! What a policy remembers about itself: breaker, last clean and reconcile, shards, leases. One item each, conditional writes.
//!
//! A crash between two calls leaves each of them as it was or as it was to be. A lease that nobody gave back runs out.

use super::expression::Expression;
use super::item::{Item, Reader, keys, number, text};
use super::layout::{FORMAT, FORMAT_OF, LEASE, STATE};
use super::rows::{Put, known_format};
use super::{DynamoDbCatalog, is_refused};
use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use engine::error::{ErrorKind, PortResult};
use engine::ports::catalog::{PolicyState, StateChange, Trip};
use lifecycle::time::UnixMs;

const TRIPPED_AT: &str = "tripped_at";
const TRIPPED_REMOVED: &str = "tripped_removed";
const TRIPPED_LIVE: &str = "tripped_live";
const RELEASED_AT: &str = "released_at";
const CLEANED_AT: &str = "cleaned_at";
const RECONCILED_AT: &str = "reconciled_at";
const RECONCILED_LEFT: &str = "reconciled_left";
const INDEX_SHARDS: &str = "index_shards";
const HOLDER: &str = "holder";
const UNTIL: &str = "until";

impl DynamoDbCatalog {
    /// The policy's state.
    pub(super) async fn read_state(&self) -> PortResult<PolicyState> {
        let call = self.call("read policy state", "dynamodb:GetItem", "state");
        let Some(item) = self.get_item(&call, keys(self.layout.policy(), STATE)).await? else {
            return Ok(PolicyState::default());
        };
        let reader = self.state_of(&item);
        reader.known_format()?;
        let moment = |attribute| Ok(reader.optional_number(attribute)?.map(UnixMs));
        let tripped = match moment(TRIPPED_AT)? {
            Some(at) => Some(Trip { at, removed: reader.number(TRIPPED_REMOVED)?, live: reader.number(TRIPPED_LIVE)? }),
            None => None,
        };
        let reconciled = match moment(RECONCILED_AT)? {
            Some(at) => Some((at, reader.number(RECONCILED_LEFT)?)),
            None => None,
        };
        Ok(PolicyState { tripped, released_at: moment(RELEASED_AT)?, cleaned_at: moment(CLEANED_AT)?, reconciled })
    }

    /// Changes the policy's state.
    pub(super) async fn change_state(&self, change: StateChange) -> PortResult<()> {
        let call = self.call("change policy state", "dynamodb:UpdateItem", "state");
        let mut update = Expression::default();
        update.set(FORMAT_OF, number(FORMAT));
        let mut condition = known_format(&mut update);
        match change {
            StateChange::Trip(Trip { at, removed, live }) => {
                update.set(TRIPPED_AT, number(at.0));
                update.set(TRIPPED_REMOVED, number(removed));
                update.set(TRIPPED_LIVE, number(live));
                let tripped = update.name(TRIPPED_AT);
                condition = format!("{condition} AND attribute_not_exists({tripped})");
            }
            StateChange::Release(at) => return self.release(at).await,
            StateChange::Cleaned(at) => update.set(CLEANED_AT, number(at.0)),
            StateChange::Reconciled(at, left) => {
                update.set(RECONCILED_AT, number(at.0));
                update.set(RECONCILED_LEFT, number(left));
            }
        }
        update.only_if(condition);
        match self.update_item(&call, keys(self.layout.policy(), STATE), update).await? {
            Put::Done => Ok(()),
            // A newer version's: reading it says so. Or it has tripped already, and stays as it is.
            Put::Refused(_) => self.read_state().await.map(drop),
        }
    }

    /// Releases the breaker, in one single try: a late second one could open a breaker that tripped again meanwhile.
    async fn release(&self, at: UnixMs) -> PortResult<()> {
        let call = self.call("release breaker", "dynamodb:UpdateItem", "state");
        let mut update = Expression::default();
        update.set(FORMAT_OF, number(FORMAT));
        update.set(RELEASED_AT, number(at.0));
        [TRIPPED_AT, TRIPPED_REMOVED, TRIPPED_LIVE].into_iter().for_each(|attribute| update.remove(attribute));
        let known = known_format(&mut update);
        update.only_if(known);
        let request = self.client.update_item().table_name(&self.table);
        let request = request.set_key(Some(keys(self.layout.policy(), STATE)));
        let request = request.set_update_expression(update.update()).set_condition_expression(update.condition());
        let request = request.set_expression_attribute_names(update.names());
        let request = request.set_expression_attribute_values(update.values());
        let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total).customize();
        let once = request.config_override(Builder::new().retry_config(RetryConfig::disabled()));
        match once.send().await {
            Ok(answer) => {
                self.capacity.wrote(answer.consumed_capacity.as_slice());
                Ok(())
            }
            // A newer version's: reading it says so.
            Err(error) if is_refused(&error) => self.read_state().await.map(drop),
            Err(error) => Err(call.sdk(error)),
        }
    }

    fn state_of<'a>(&self, item: &'a Item) -> Reader<'a> {
        Reader { item, which: format!("state of the policy in table {}", self.table) }
    }

    /// Notes over how many shards the policy's entries are spread from now on; the most that they ever were.
    pub(super) async fn note_shards(&self) -> PortResult<u32> {
        let call = self.call("note index shards", "dynamodb:UpdateItem", "state");
        let shards = self.layout.shards();
        let mut update = Expression::default();
        update.set(FORMAT_OF, number(FORMAT));
        update.set(INDEX_SHARDS, number(shards));
        let name = update.name(INDEX_SHARDS);
        let (known, wanted) = (known_format(&mut update), update.value(number(shards)));
        update.only_if(format!("{known} AND (attribute_not_exists({name}) OR {name} < {wanted})"));
        let key = keys(self.layout.policy(), STATE);
        if let Put::Done = self.update_item(&call, key.clone(), update).await? {
            return Ok(shards);
        }
        let item = self.get_item(&call, key).await?.ok_or_else(|| call.failed(ErrorKind::Unavailable))?;
        let reader = self.state_of(&item);
        reader.known_format()?;
        Ok(reader.number::<u32>(INDEX_SHARDS)?.max(shards))
    }

    /// Takes or renews a lease; whether `holder` has it now.
    pub(super) async fn take_lease(&self, name: &str, holder: &str, now: UnixMs, until: UnixMs) -> PortResult<bool> {
        let call = self.call("take lease", "dynamodb:UpdateItem", name);
        let mut update = Expression::default();
        update.set(HOLDER, text(holder));
        update.set(UNTIL, number(until.0));
        let (held_by, ends) = (update.name(HOLDER), update.name(UNTIL));
        let (me, now) = (update.value(text(holder)), update.value(number(now.0)));
        update.only_if(format!("attribute_not_exists({held_by}) OR {held_by} = {me} OR {ends} <= {now}"));
        let taken = self.update_item(&call, keys(self.layout.policy(), &lease_key(name)), update).await?;
        Ok(matches!(taken, Put::Done))
    }

    /// Gives a lease back, if `holder` has it.
    pub(super) async fn give_lease_back(&self, name: &str, holder: &str) -> PortResult<()> {
        let call = self.call("give lease back", "dynamodb:DeleteItem", name);
        let mut mine = Expression::default();
        let (held_by, me) = (mine.name(HOLDER), mine.value(text(holder)));
        mine.only_if(format!("{held_by} = {me}"));
        // Whoever else has it keeps it.
        self.delete_item(&call, keys(self.layout.policy(), &lease_key(name)), mine).await.map(drop)
    }
}

fn lease_key(name: &str) -> String {
    format!("{LEASE}{name}")
}

//! How somebody's table stands, and what an archive needs of it switched on: its stream, its time to live. Nothing is
//! switched off here, whatever stands in the way.

use super::records::DynamoDbTable;
use crate::error_map::Call;
use crate::limits::{TABLE_LOOK_WAIT, TABLE_LOOKS_MAX};
use async_trait::async_trait;
use aws_sdk_dynamodb::types::{
    ScalarAttributeType, StreamSpecification, StreamViewType, TableDescription, TableStatus, TimeToLiveSpecification,
    TimeToLiveStatus,
};
use engine::error::{ErrorKind, PortResult};
use engine::ports::clock::Clock;
use engine::ports::tables::{KeyKind, KeyPart, StreamView, TableLook, TableSetup, TableSwitch, TimeToLive};

#[async_trait]
impl TableLook for DynamoDbTable {
    async fn setup(&self) -> PortResult<TableSetup> {
        let call = Call::new("look at table", "dynamodb:DescribeTable", &self.table);
        let found = self.described(&call).await?;
        let unknown =
            || call.failed(ErrorKind::NotSetUp("its key has a type that this version does not know".to_owned()));
        let key = key(&found).ok_or_else(unknown)?;
        let view = found.stream_specification().filter(|stream| stream.stream_enabled());
        let stream = view.and_then(|stream| StreamView::parse(stream.stream_view_type()?.as_str()));
        let call = Call::new("look at time to live", "dynamodb:DescribeTimeToLive", &self.table);
        let answer = self.client.describe_time_to_live().table_name(&self.table).send().await;
        let ttl = answer.map_err(|error| call.sdk(error))?.time_to_live_description;
        let status = ttl.as_ref().and_then(|ttl| ttl.time_to_live_status());
        let attribute = ttl.as_ref().and_then(|ttl| ttl.attribute_name());
        let ttl = match (status, attribute) {
            (Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling), Some(name)) => {
                TimeToLive::By(name.to_owned())
            }
            (Some(TimeToLiveStatus::Disabling), _) => TimeToLive::EndingSoon,
            _ => TimeToLive::Off,
        };
        Ok(TableSetup { key, stream, ttl })
    }
}

#[async_trait]
impl TableSwitch for DynamoDbTable {
    async fn switch_stream_on(&self, view: StreamView, clock: &dyn Clock) -> PortResult<()> {
        let call = Call::new("switch stream on", "dynamodb:UpdateTable", &self.table);
        let wanted = StreamSpecification::builder().stream_enabled(true);
        let wanted = wanted.stream_view_type(StreamViewType::from(view.code())).build();
        let unbuilt = |error| call.failed(ErrorKind::Internal("the request is not whole".to_owned())).because(error);
        let request = self.client.update_table().table_name(&self.table);
        request.stream_specification(wanted.map_err(unbuilt)?).send().await.map_err(|error| call.sdk(error))?;
        let call = Call::new("wait for stream of table", "dynamodb:DescribeTable", &self.table);
        for look in 0..TABLE_LOOKS_MAX {
            if look > 0 {
                clock.sleep(TABLE_LOOK_WAIT).await;
            }
            let found = self.described(&call).await?;
            let is_active = found.table_status().is_none_or(|status| *status == TableStatus::Active);
            if is_active && found.latest_stream_arn().is_some() {
                return Ok(());
            }
        }
        Err(call.failed(ErrorKind::Unavailable))
    }

    async fn switch_ttl_on(&self, attribute: &str) -> PortResult<()> {
        let call = Call::new("switch time to live on", "dynamodb:UpdateTimeToLive", &self.table);
        let wanted = TimeToLiveSpecification::builder().enabled(true).attribute_name(attribute).build();
        let unbuilt = |error| call.failed(ErrorKind::Internal("the request is not whole".to_owned())).because(error);
        let request = self.client.update_time_to_live().table_name(&self.table);
        let answer = request.time_to_live_specification(wanted.map_err(unbuilt)?).send().await;
        answer.map(drop).map_err(|error| call.sdk(error))
    }
}

impl DynamoDbTable {
    async fn described(&self, call: &Call) -> PortResult<TableDescription> {
        let answer = self.client.describe_table().table_name(&self.table).send().await;
        answer.map_err(|error| call.sdk(error))?.table.ok_or_else(|| call.failed(ErrorKind::Unavailable))
    }
}

/// The table's key with its types.
fn key(found: &TableDescription) -> Option<Vec<KeyPart>> {
    let kind = |name: &str| {
        let definition = found.attribute_definitions().iter().find(|definition| definition.attribute_name() == name)?;
        Some(match definition.attribute_type() {
            ScalarAttributeType::S => KeyKind::Text,
            ScalarAttributeType::N => KeyKind::Number,
            ScalarAttributeType::B => KeyKind::Binary,
            _ => return None,
        })
    };
    super::schema::key_names(found).into_iter().map(|name| Some(KeyPart { kind: kind(&name)?, name })).collect()
}

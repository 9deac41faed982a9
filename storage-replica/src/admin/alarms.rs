//! The alarms of a cluster: its members raise them, and whoever has looked into it takes them back.

use storage_core::Result;
use storage_etcd_api::proto::etcdserverpb::{
    self as pb, AlarmType, alarm_request::AlarmAction, maintenance_client::MaintenanceClient,
};

use super::{Admin, read_error, write_error};

/// An alarm that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Alarm {
    /// The id of the member that has raised it.
    pub member: u64,
    /// What it is, in etcd's word: `NOSPACE`, or `CORRUPT` of an etcd.
    pub kind: &'static str,
}

impl Admin {
    /// The alarms that stand.
    ///
    /// # Errors
    /// [`Error::Unavailable`](storage_core::Error::Unavailable) if no node answers, or there is no leader.
    pub async fn alarms(&self) -> Result<Vec<Alarm>> {
        let (url, channel) = self.first().await?;
        let request = pb::AlarmRequest { action: AlarmAction::Get.into(), ..pb::AlarmRequest::default() };
        let answer = self.ask(async { MaintenanceClient::new(channel).alarm(request).await }).await;
        let answer = answer.map_err(|status| read_error(&url, &status))?.into_inner();
        let alarms =
            answer.alarms.iter().map(|alarm| Alarm { member: alarm.member_id, kind: alarm.alarm().as_str_name() });
        Ok(alarms.collect())
    }

    /// Takes an alarm back. If its cause stands, it is raised again.
    ///
    /// # Errors
    /// See [`Admin::add`].
    pub async fn disarm(&self, alarm: &Alarm) -> Result<()> {
        let (url, channel) = self.first().await?;
        let kind = AlarmType::from_str_name(alarm.kind).unwrap_or_default();
        let request =
            pb::AlarmRequest { action: AlarmAction::Deactivate.into(), member_id: alarm.member, alarm: kind.into() };
        let answer = self.ask(async { MaintenanceClient::new(channel).alarm(request).await }).await;
        answer.map(|_| ()).map_err(|status| write_error(&url, &status))
    }
}

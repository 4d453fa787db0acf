-- Who is told of alerts, and when: routes, silences, inhibition, times, maintenance, escalation; what was told.

ALTER TABLE radarflow.alerts
    ADD COLUMN "escalation_level" bigint NOT NULL DEFAULT 0,
    ADD COLUMN "suppressed_until" timestamptz,
    ADD COLUMN "suppressed_by" text,
    ADD COLUMN "metric_name" text,
    ADD COLUMN "metric_value" text,
    ADD COLUMN "threshold_value" text,
    ADD COLUMN "comparison" text,
    ADD COLUMN "last_notification_at" timestamptz,
    ADD COLUMN "notification_count" bigint NOT NULL DEFAULT 0;

ALTER TABLE radarflow.receivers
    ADD COLUMN "template" text,
    ADD COLUMN "signed" boolean NOT NULL DEFAULT false;

CREATE TABLE radarflow.routes (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "parent" text,
    "position" bigint NOT NULL,
    "matchers" text[] NOT NULL,
    "receivers" text[] NOT NULL,
    "group_by" text[] NOT NULL,
    "group_wait_ms" bigint,
    "group_interval_ms" bigint,
    "repeat_interval_ms" bigint,
    "continue" boolean NOT NULL,
    "mute_time_intervals" text[] NOT NULL,
    "active_time_intervals" text[] NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.routes ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.routes FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TABLE radarflow.silences (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "matchers" text[] NOT NULL,
    "starts_at" timestamptz,
    "ends_at" timestamptz NOT NULL,
    "comment" text NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.silences ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.silences FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TABLE radarflow.inhibit_rules (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "source_matchers" text[] NOT NULL,
    "target_matchers" text[] NOT NULL,
    "equal" text[] NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.inhibit_rules ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.inhibit_rules FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TABLE radarflow.time_intervals (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "periods" text[] NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.time_intervals ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.time_intervals FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TABLE radarflow.maintenance_windows (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "condition" text,
    "partitions" text[] NOT NULL,
    "starts_at" timestamptz,
    "ends_at" timestamptz,
    "time_intervals" text[] NOT NULL,
    "comment" text NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.maintenance_windows ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.maintenance_windows FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TABLE radarflow.escalation_policies (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "position" bigint NOT NULL,
    "matchers" text[] NOT NULL,
    "levels" text[] NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.escalation_policies ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.escalation_policies FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TABLE radarflow.alert_notifications (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "alert_id" text NOT NULL,
    "receiver" text NOT NULL,
    "group_key" text NOT NULL,
    "route" text NOT NULL,
    "state" text NOT NULL,
    "reason" text NOT NULL,
    "until" timestamptz,
    "told" text,
    "told_at" timestamptz,
    "notification_id" text,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "alert_id", "receiver", "group_key")
);

ALTER TABLE radarflow.alert_notifications ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.alert_notifications FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TABLE radarflow.dead_letters (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "receiver" text NOT NULL,
    "notification_id" text NOT NULL,
    "group_key" text NOT NULL,
    "status" text NOT NULL,
    "alert_ids" text[] NOT NULL,
    "reason" text NOT NULL,
    "died_at" timestamptz NOT NULL,
    "replaying" boolean NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "receiver", "notification_id")
);

ALTER TABLE radarflow.dead_letters ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.dead_letters FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.routes FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.silences FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.inhibit_rules FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.time_intervals FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.maintenance_windows FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.escalation_policies FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();

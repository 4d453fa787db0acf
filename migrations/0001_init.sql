-- State tables hold what is; health_events, alert_history and notifications what happened.
-- Every key begins with the tenant. Readers see their tenant only: see the policies at the end.

CREATE TABLE radarflow.sink_progress (
    sink text PRIMARY KEY,
    generation bigint NOT NULL,
    frontier bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Which login role reads which tenant. Readers cannot write it.
CREATE TABLE radarflow.reader_tenants (
    role_name text PRIMARY KEY,
    tenant_id text NOT NULL
);

CREATE TABLE radarflow.ocsf_devices (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "uid" text NOT NULL,
    "display_name" text NOT NULL,
    "hostname" text,
    "name" text,
    "ip" text,
    "ip_addresses" text[] NOT NULL,
    "mac" text,
    "mac_addresses" text[] NOT NULL,
    "type" text,
    "vendor_name" text,
    "model" text,
    "os" text,
    "agent_id" text,
    "gateway_id" text,
    "discovery_sources" text[] NOT NULL,
    "is_available" boolean,
    "availability" text NOT NULL,
    "availability_since" timestamptz,
    "availability_reason" text,
    "first_seen_time" timestamptz NOT NULL,
    "last_seen_time" timestamptz NOT NULL,
    "lifecycle" text NOT NULL,
    "metadata" jsonb NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "uid")
);

CREATE TABLE radarflow.device_identifiers (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "identifier_type" text NOT NULL,
    "source_instance" text NOT NULL,
    "identifier_value" text NOT NULL,
    "state" text NOT NULL,
    "device_uid" text,
    "first_seen" timestamptz,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "identifier_type", "source_instance", "identifier_value")
);

CREATE TABLE radarflow.device_redirects (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "from_uid" text NOT NULL,
    "to_uid" text NOT NULL,
    "identifier" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "from_uid")
);

CREATE TABLE radarflow.ip_ownership (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "ip" text NOT NULL,
    "device_uid" text,
    "class" text NOT NULL,
    "valid_from" timestamptz NOT NULL,
    "valid_to" timestamptz,
    "ip_uid" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "ip")
);

CREATE TABLE radarflow.ocsf_agents (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "agent_id" text NOT NULL,
    "state" text NOT NULL,
    "since" timestamptz NOT NULL,
    "last_seen" timestamptz NOT NULL,
    "version" text,
    "hostname" text,
    "os" text,
    "arch" text,
    "capabilities" text[] NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "agent_id")
);

CREATE TABLE radarflow.alerts (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "id" text NOT NULL,
    "fingerprint" text NOT NULL,
    "title" text NOT NULL,
    "description" text NOT NULL,
    "severity" text NOT NULL,
    "status" text NOT NULL,
    "source_type" text NOT NULL,
    "source_id" text NOT NULL,
    "device_uid" text,
    "agent_uid" text,
    "rule" text NOT NULL,
    "triggered_at" timestamptz NOT NULL,
    "acknowledged_at" timestamptz,
    "acknowledged_by" text,
    "resolved_at" timestamptz,
    "resolved_by" text,
    "escalated_at" timestamptz,
    "occurrence_count" bigint NOT NULL,
    "labels" jsonb NOT NULL,
    "annotations" jsonb NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "id")
);

CREATE TABLE radarflow.sources (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "source" text NOT NULL,
    "exporter" text NOT NULL,
    "received" bigint NOT NULL,
    "stored" bigint NOT NULL,
    "rejected" bigint NOT NULL,
    "shed" bigint NOT NULL,
    "lost" bigint NOT NULL,
    "rows" bigint NOT NULL,
    "waiting_sets" bigint NOT NULL,
    "waiting" text,
    "last_seen" timestamptz NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "source", "exporter")
);

CREATE TABLE radarflow.health_events (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "row_id" numeric(38,0) NOT NULL,
    "epoch" bigint NOT NULL,
    "entity_type" text NOT NULL,
    "entity_id" text NOT NULL,
    "old_state" text NOT NULL,
    "new_state" text NOT NULL,
    "reason" text NOT NULL,
    "duration_seconds" bigint,
    "recorded_at" timestamptz NOT NULL,
    "device_uid" text,
    PRIMARY KEY ("tenant_id", "row_id")
);

CREATE TABLE radarflow.alert_history (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "row_id" numeric(38,0) NOT NULL,
    "epoch" bigint NOT NULL,
    "time" timestamptz NOT NULL,
    "alert_id" text NOT NULL,
    "old_status" text,
    "new_status" text NOT NULL,
    "actor" text NOT NULL,
    "reason" text NOT NULL,
    "device_uid" text,
    PRIMARY KEY ("tenant_id", "row_id")
);

CREATE TABLE radarflow.notifications (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "row_id" numeric(38,0) NOT NULL,
    "epoch" bigint NOT NULL,
    "time" timestamptz NOT NULL,
    "notification_id" text NOT NULL,
    "receiver" text NOT NULL,
    "group_key" text NOT NULL,
    "outcome" text NOT NULL,
    "status" text NOT NULL,
    "alert_ids" text[] NOT NULL,
    "reason" text NOT NULL,
    PRIMARY KEY ("tenant_id", "row_id")
);

-- A reader's rows are those of the tenant its login role is mapped to; without a mapping there are none.
CREATE FUNCTION radarflow.reader_tenant() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = radarflow AS
    'SELECT tenant_id FROM radarflow.reader_tenants WHERE role_name = session_user';

ALTER TABLE radarflow.ocsf_devices ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.ocsf_devices FOR SELECT USING (tenant_id = radarflow.reader_tenant());
ALTER TABLE radarflow.device_identifiers ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.device_identifiers FOR SELECT USING (tenant_id = radarflow.reader_tenant());
ALTER TABLE radarflow.device_redirects ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.device_redirects FOR SELECT USING (tenant_id = radarflow.reader_tenant());
ALTER TABLE radarflow.ip_ownership ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.ip_ownership FOR SELECT USING (tenant_id = radarflow.reader_tenant());
ALTER TABLE radarflow.ocsf_agents ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.ocsf_agents FOR SELECT USING (tenant_id = radarflow.reader_tenant());
ALTER TABLE radarflow.alerts ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.alerts FOR SELECT USING (tenant_id = radarflow.reader_tenant());
ALTER TABLE radarflow.sources ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.sources FOR SELECT USING (tenant_id = radarflow.reader_tenant());
ALTER TABLE radarflow.health_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.health_events FOR SELECT USING (tenant_id = radarflow.reader_tenant());
ALTER TABLE radarflow.alert_history ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.alert_history FOR SELECT USING (tenant_id = radarflow.reader_tenant());
ALTER TABLE radarflow.notifications ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.notifications FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE INDEX ocsf_devices_ip ON radarflow.ocsf_devices (tenant_id, partition, ip);
CREATE INDEX alerts_open ON radarflow.alerts (tenant_id, status);
CREATE INDEX health_events_entity ON radarflow.health_events (tenant_id, entity_id, recorded_at);

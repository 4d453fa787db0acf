-- What agents say of services, and interfaces that discovery found.
CREATE TABLE radarflow.service_state (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "agent_id" text NOT NULL,
    "service_type" text NOT NULL,
    "service_name" text NOT NULL,
    "gateway_id" text,
    "available" boolean,
    "state" text NOT NULL,
    "since" timestamptz NOT NULL,
    "message" text,
    "last_seen" timestamptz NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "agent_id", "service_type", "service_name")
);

ALTER TABLE radarflow.service_state ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.service_state FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TABLE radarflow.discovered_interfaces (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "device_ip" text NOT NULL,
    "if_index" bigint NOT NULL,
    "interface_uid" text NOT NULL,
    "agent_id" text NOT NULL,
    "if_name" text,
    "if_descr" text,
    "if_alias" text,
    "if_speed_bps" bigint,
    "if_type" bigint,
    "if_mac" text,
    "ip_addresses" text[] NOT NULL,
    "if_admin_status" bigint,
    "if_oper_status" bigint,
    "available_metrics" text,
    "metadata" jsonb NOT NULL,
    "first_seen" timestamptz NOT NULL,
    "last_seen" timestamptz NOT NULL,
    "device_uid" text,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "device_ip", "if_index")
);

ALTER TABLE radarflow.discovered_interfaces ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.discovered_interfaces FOR SELECT USING (tenant_id = radarflow.reader_tenant());

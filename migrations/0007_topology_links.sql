-- Neighbours that polled devices report.

CREATE TABLE radarflow.topology_links (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "local_ip" text NOT NULL,
    "local_if_index" bigint NOT NULL,
    "local_if_name" text,
    "protocol" text NOT NULL,
    "neighbor_chassis_id" text NOT NULL,
    "neighbor_port_id" text NOT NULL,
    "neighbor_port_descr" text,
    "neighbor_system_name" text,
    "neighbor_mac" text,
    "neighbor_ip" text,
    "first_seen" timestamptz NOT NULL,
    "last_seen" timestamptz NOT NULL,
    "device_uid" text,
    "neighbor_device_uid" text,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "local_ip", "local_if_index", "protocol", "neighbor_chassis_id", "neighbor_port_id")
);

ALTER TABLE radarflow.topology_links ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.topology_links FOR SELECT USING (tenant_id = radarflow.reader_tenant());

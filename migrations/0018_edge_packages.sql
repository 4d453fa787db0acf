CREATE TABLE radarflow.certificate_authorities (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "authority_id" text NOT NULL,
    "certificate" text NOT NULL,
    "fingerprint" text NOT NULL,
    "not_after" timestamptz NOT NULL,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "authority_id")
);

ALTER TABLE radarflow.certificate_authorities ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.certificate_authorities FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TABLE radarflow.edge_packages (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "package_id" text NOT NULL,
    "name" text NOT NULL,
    "agent_id" text NOT NULL,
    "site" text NOT NULL,
    "gateway" text,
    "notes" text,
    "status" text NOT NULL,
    "expires_at" timestamptz,
    "downloaded_at" timestamptz,
    "downloaded_by" text,
    "installed_at" timestamptz,
    "revoked_at" timestamptz,
    "revoked_by" text,
    "revoked_because" text,
    "serial" text,
    "fingerprint" text,
    "previous_fingerprint" text,
    "certificate_expires_at" timestamptz,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "package_id")
);

ALTER TABLE radarflow.edge_packages ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.edge_packages FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.certificate_authorities FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();

CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.edge_packages FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();

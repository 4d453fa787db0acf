-- Soft deletion: who hid a device, when and why.

ALTER TABLE radarflow.ocsf_devices
    ADD COLUMN "deleted_at" timestamptz,
    ADD COLUMN "deleted_by" text,
    ADD COLUMN "deleted_reason" text;

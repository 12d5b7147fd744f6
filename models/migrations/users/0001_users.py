"""Accounts, their sessions, the mails to be sent about them, and the audit of sign-ins and changes."""

from models.migrations.sql import run_script

revision = "users_0001"
down_revision = None


def upgrade() -> None:
    run_script(
        """
        CREATE TABLE users.users (
            id              uuid PRIMARY KEY DEFAULT uuidv7(),
            email           text NOT NULL CHECK (length(email) BETWEEN 3 AND 320),
            full_name       text NOT NULL CHECK (length(full_name) BETWEEN 1 AND 200),
            hashed_password text NOT NULL CHECK (hashed_password LIKE '$argon2id$%'),
            role            text NOT NULL DEFAULT 'shopper' CHECK (role IN ('shopper', 'support', 'admin')),
            is_active       boolean NOT NULL DEFAULT true,
            is_verified     boolean NOT NULL DEFAULT false,
            -- fastapi-users asks for it; it follows from the role, so nothing can set it
            is_superuser    boolean NOT NULL GENERATED ALWAYS AS (role = 'admin') STORED,
            created_at      timestamptz NOT NULL DEFAULT now(),
            updated_at      timestamptz NOT NULL DEFAULT now()
        );
        CREATE UNIQUE INDEX users_by_email ON users.users (lower(email));

        CREATE TABLE users.sessions (
            id           uuid PRIMARY KEY DEFAULT uuidv7(),
            user_id      uuid NOT NULL REFERENCES users.users,
            nonce        bytea NOT NULL,
            generation   integer NOT NULL DEFAULT 1 CHECK (generation > 0),
            created_at   timestamptz NOT NULL DEFAULT now(),
            rotated_at   timestamptz NOT NULL DEFAULT now(),
            expires_at   timestamptz NOT NULL,
            revoked_at   timestamptz,
            announced_at timestamptz CHECK (announced_at IS NULL OR revoked_at IS NOT NULL)
        );
        CREATE INDEX sessions_by_user ON users.sessions (user_id);
        CREATE INDEX sessions_revoked ON users.sessions (revoked_at) WHERE revoked_at IS NOT NULL;

        CREATE TABLE users.mails (
            id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            kind       text NOT NULL CHECK (kind IN ('verify', 'reset', 'change_email', 'already_registered',
                                                     'password_changed', 'email_changed')),
            user_id    uuid NOT NULL REFERENCES users.users,
            address    text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            sent_at    timestamptz
        );
        CREATE INDEX mails_unsent ON users.mails (id) WHERE sent_at IS NULL;

        CREATE TABLE users.audit (
            id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            user_id uuid,
            event   text NOT NULL,
            at      timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        CREATE INDEX audit_by_user ON users.audit (user_id);
        REVOKE UPDATE, DELETE ON users.audit FROM mercato_users;
        """
    )


def downgrade() -> None:
    raise NotImplementedError("histories only go forward")

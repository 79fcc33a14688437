-- Run once by the PostgreSQL image, when the volume is empty. Each service has a role of its own, which cannot enter the databases of others.
\getenv optuna OPTUNA_PASSWORD
\getenv dashboard DASHBOARD_PASSWORD
\getenv mlflow MLFLOW_DATABASE_PASSWORD
CREATE ROLE optuna LOGIN PASSWORD :'optuna';
CREATE ROLE dashboard LOGIN PASSWORD :'dashboard';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';

CREATE DATABASE optuna OWNER optuna;
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_users OWNER mlflow;
REVOKE CONNECT, TEMPORARY ON DATABASE optuna, mlflow, mlflow_users, postgres FROM PUBLIC;
GRANT CONNECT ON DATABASE optuna TO dashboard;

\connect optuna
-- The dashboard asks nobody for a password, so it only reads.
ALTER DEFAULT PRIVILEGES FOR ROLE optuna IN SCHEMA public GRANT SELECT ON TABLES TO dashboard;

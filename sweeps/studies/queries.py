"""SQL of the study database: what Optuna has no public call for."""

from sqlalchemy import DateTime, Integer, String, bindparam, column, table, text

STUDY_ATTRIBUTES = table("study_user_attributes", column("study_id"), column("key"), column("value_json"))
TRIAL_ATTRIBUTES = table("trial_user_attributes", column("trial_id"), column("key"), column("value_json"))

STUDIES = text("SELECT study_id, study_name FROM studies ORDER BY study_id")

ATTRIBUTES_OF_STUDIES = text(
    "SELECT study_id, key, value_json FROM study_user_attributes WHERE study_id IN :studies AND key IN :keys"
).bindparams(bindparam("studies", expanding=True), bindparam("keys", expanding=True))

TRIALS = (
    text("""
        SELECT study_id, trial_id, number, state, datetime_start AS started, datetime_complete AS ended
        FROM trials WHERE study_id IN :studies ORDER BY trial_id
    """)
    .bindparams(bindparam("studies", expanding=True))
    .columns(
        study_id=Integer, trial_id=Integer, number=Integer, state=String, started=DateTime, ended=DateTime
    )
)

ATTRIBUTES_OF_TRIALS = text("""
    SELECT a.trial_id, a.key, a.value_json
    FROM trial_user_attributes a JOIN trials t ON t.trial_id = a.trial_id
    WHERE t.study_id IN :studies AND a.key IN :keys
""").bindparams(bindparam("studies", expanding=True), bindparam("keys", expanding=True))

OUTCOMES = text(
    "SELECT trial_id, value_json FROM trial_user_attributes WHERE key = 'outcome' AND trial_id IN :trials"
).bindparams(bindparam("trials", expanding=True))

HEARTBEATS = (
    text("""
        SELECT t.trial_id, h.heartbeat, CURRENT_TIMESTAMP AS now
        FROM trials t LEFT JOIN trial_heartbeats h ON h.trial_id = t.trial_id
        WHERE t.state = 'RUNNING' AND t.study_id IN :studies
    """)
    .bindparams(bindparam("studies", expanding=True))
    .columns(trial_id=Integer, heartbeat=DateTime, now=DateTime)
)

WITHOUT_HEARTBEAT = text("""
    SELECT t.trial_id FROM trials t LEFT JOIN trial_heartbeats h ON h.trial_id = t.trial_id
    WHERE t.study_id = :study AND t.state = 'RUNNING' AND h.trial_id IS NULL
""")

BUSY_STAGES = text("""
    SELECT DISTINCT s.study_name FROM studies s JOIN trials t ON t.study_id = s.study_id
    WHERE t.state IN ('WAITING', 'RUNNING') AND substr(s.study_name, 1, :length) = :base
""")

"""What runs the assets: a job over the whole graph, and Dagster's sensor for automation conditions."""

import dagster as dg

refresh_handbook = dg.define_asset_job("refresh_handbook", selection="group:handbook")
automation = dg.AutomationConditionSensorDefinition(
    "automation", target="*", default_status=dg.DefaultSensorStatus.RUNNING
)

"""The tables of a DeviceHive server, as psql exports them."""

from __future__ import annotations

from pathlib import Path

#: The password of both users.
OLD_PASSWORD = "dhadmin_#911"
SALT = "sjQbZgcCmFxqTV4CCmGwpIHO"
DIGEST = "DFXFrZ8VQIkOYECScBbBwsYinj+o8IlaLsRQ81wO+l8="
JWT_SECRET = "devicehive"

# Columns in the order that DeviceHive's migrations leave, as `select *` gives them.
TABLES = {
    "dh_user": f"""\
id,login,password_hash,password_salt,role,status,login_attempts,last_login,entity_version,data,\
intro_reviewed,all_device_types_available
4,operator@site.org,{DIGEST},{SALT},1,0,2,2018-05-31 14:00:00.123+02,7,"{{""a"":\n""x,y""}}",t,f
1,dhadmin,{DIGEST},{SALT},0,0,0,,0,,f,t
9,former,,,1,2,0,2018-05-31 12:00:00+00,1,,,
""",
    "network": """\
id,name,description,entity_version
1,Sample Network,A DeviceHive Sample Network,0
12,"Ground floor, left",,3
""",
    "user_network": """\
id,user_id,network_id,entity_version
1,1,1,0
2,4,12,0
3,4,12,0
""",
    "device_type": """\
id,name,description,entity_version
1,Default Device Type,Default DeviceHive device type,0
6,Cars,"Devices to ""develop"" your own smart cars",0
""",
    "user_device_type": """\
id,user_id,device_type_id,entity_version
1,1,1,0
2,4,6,0
""",
    "device": """\
id,device_id,name,network_id,entity_version,data,blocked,device_type_id
1,e50d6085-2aba-48e9-b1c3-73c673e414be,Sample Device,1,0,,f,1
30,Lamp-2,Flur süd,12,0,"{""address"": {""host"": ""10.0.0.2""}}",t,6
31,Lamp-3,third,12,0,,,6
""",
    "configuration": f"""\
name,value,entity_version,id
jwt.secret,{JWT_SECRET},0,1
user.login.lastTimeout,1000,0,2
user.login.maxAttempts,3,0,3
app.theme,dark,0,4
""",
}


def export(directory: Path, **tables: str | None) -> Path:
    """Write the tables, some of them otherwise, or not at all; return the directory."""
    directory.mkdir(exist_ok=True)
    for name, text in {**TABLES, **tables}.items():
        if text is not None:
            (directory / f"{name}.csv").write_text(text, "utf-8")
    return directory

//! Names that SQL gives a meaning to. The lists are sorted.

use crate::words::words;

/// Functions that hardly any text, but many an attack, calls: they wait, read files, run commands, carry data out in
/// errors, or exist in databases only.
pub(crate) static TELLING: &[&str] = words!(
    "aes_decrypt aes_encrypt array_agg array_to_json array_to_string ascii bdfilename benchmark bin_to_uuid charindex
     chr col_length col_name compress concat_ws connection_id convert_from convert_to convert_tz current_database
     current_schema current_setting current_user database database_to_xml db_id db_name dblink_connect dbms_lock
     dbms_pipe des_decrypt des_encrypt elt export_set extractvalue file_name filegroup_name find_in_set found_rows
     from_base64 from_days from_unixtime generate_series get_lock group_concat gtid_subset gtid_subtract has_dbaccess
     host_name iif inet6_aton inet_aton inet_ntoa is_free_lock is_member is_srvrolemember is_used_lock json_extract
     json_keys json_length jsonb_extract_path jsonb_pretty last_insert_id like_escape likelihood lo_export lo_get
     lo_import load_extension load_file make_set makedate master_pos_wait name_const newid nullif nvl2 object_id
     object_name octet_length old_password opendatasource openquery openrowset ord pg_client_encoding pg_file_read
     pg_file_write pg_ls_dir pg_read_binary_file pg_read_file pg_sleep pg_sleep_for pg_sleep_until pg_stat_file
     pg_terminate_backend query_to_xml quote_ident quote_literal randomblob rawtohex regexp_instr regexp_like
     regexp_replace regexp_substr release_lock row_count rpad schema_name sec_to_time session_user sleep soundex
     sp_password sqlite_compileoption_get sqlite_version st_latfromgeohash st_longfromgeohash st_pointfromgeohash
     strcmp string_agg string_to_array subdate substring_index suser_name suser_sname sys_context sys_eval sys_exec
     sys_get sysdate sysdatetime system_user table_to_xml time_to_sec timestampadd to_base64 to_days to_timestamp_tz
     to_tsvector uncompress uncompressed_length unhex unistr unix_timestamp unnest updatexml user_id user_name
     utc_date utc_timestamp utl_inaddr uuid_short uuid_to_bin validate_password_strength weight_string xmltype
     xp_cmdshell xpath_exists zeroblob"
);

/// Functions that programs and spreadsheets have too.
pub(crate) static COMMON: &[&str] = words!(
    "abs acos adddate addtime analyse any_value asin atan atan2 avg bin bit_and bit_count bit_length bit_or bit_xor
     cast ceil ceiling changes char char_length character_length charset coalesce coercibility collation concat conv
     convert cos cot count crc32 curdate current_date current_time current_timestamp curtime date date_add
     date_format date_sub dateadd datediff datename datepart day dayname dayofmonth dayofweek dayofyear decode
     default degrees difference encode encrypt exists exp extract field floor format getdate glob greatest group hash
     hex hour if ifnull in insert instr interval is_null isdate isempty isnull isnumeric json json_array json_object
     julianday last last_day lcase least left len length ln localtime localtimestamp locate log log10 log2 lower lpad
     ltrim max md5 microsecond mid min minute mod month monthname now nvl oct overlay password patindex period_add
     period_diff pi position pow power quarter quote quotename radians rand random repeat replace replicate reverse
     right round row_number rtrim schema second sha sha1 sha2 sign sin space sqrt std stddev stddev_pop stddev_samp
     str_to_date strftime string stuff substr substring subtime sum tan time time_format timediff timestamp
     timestampdiff to_char to_date to_number to_timestamp total_changes translate trim truncate typeof ucase unicode
     upper user uuid values var_pop var_samp variance version week weekday weekofyear xmlagg xmlelement year yearweek"
);

/// Tables, schemas, procedures and variables of the databases themselves.
pub(crate) static SCHEMA: &[&str] = words!(
    "all_tab_columns all_tables all_users dba_users dbms_export_extension dbms_java dbms_lock dbms_pipe
     dbms_scheduler dbms_utility dbms_xmlgen dbms_xmlquery information_schema msysaccessobjects msysaces msysobjects
     msysqueries msysrelationships mysql.db pg_authid pg_catalog pg_class pg_database pg_namespace pg_shadow pg_sleep
     pg_tables pg_user rdb$database rdb$relations sp_addextendedproc sp_configure sp_execute sp_executesql
     sp_makewebtask sp_oacreate sp_oamethod sp_prepare sp_sqlexec sqlite_master sqlite_schema sqlite_temp_master
     syscat syscolumns sysdatabases sysibm syslogins sysobjects syspasswords sysprocesses sysusers user_tab_columns
     user_tables utl_file utl_http utl_inaddr utl_smtp xp_availablemedia xp_cmdshell xp_dirtree xp_enumdsn
     xp_fileexist xp_filelist xp_fixeddrives xp_loginconfig xp_makecab xp_ntsec_enumdomains xp_regaddmultistring
     xp_regdeletekey xp_regenumvalues xp_regread xp_regwrite xp_servicecontrol xp_subdirs xp_terminate_process"
);

/// Variables of MySQL and SQL Server that say which server answers.
pub(crate) static VARIABLES: &[&str] = words!(
    "@@basedir @@connections @@cpu_busy @@datadir @@dbts @@error @@global @@hostname @@identity @@language
     @@microsoftversion @@plugin_dir @@rowcount @@servername @@servicename @@session @@spid @@tmpdir @@trancount @@version
     @@version_comment"
);

/// Types that PostgreSQL casts to.
pub(crate) static TYPES: &[&str] = words!(
    "bigint bit bool boolean box bytea char cidr date decimal double float float4 float8 inet int int2 int4 int8
     integer interval json jsonb jsonpath macaddr money name numeric oid point real regclass regproc regtype serial
     smallint text time timestamp timestamptz tsquery tsvector uuid varbit varchar xml"
);

/// Words that follow SELECT, FROM and the like in English, and do not in SQL.
pub(crate) static ENGLISH: &[&str] = words!(
    "a about an and another any below between by each either every it its more my now of one or other our some that
     the their them these this those to top two up what which your"
);

#[cfg(test)]
#[test]
fn lists_are_sorted() {
    for list in [TELLING, COMMON, SCHEMA, VARIABLES, TYPES, ENGLISH] {
        assert!(list.is_sorted(), "{:?}", list.windows(2).find(|pair| pair[0] > pair[1]));
    }
}

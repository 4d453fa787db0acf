import java.sql.*;
import java.util.*;

public class Introspect {
    static int rows(ResultSet r) throws SQLException { int n = 0; while (r.next()) n++; return n; }
    public static void main(String[] args) throws Exception {
        Properties p = new Properties();
        p.setProperty("user", "me");
        p.setProperty("password", args[1]);
        try (Connection c = DriverManager.getConnection(args[0], p)) {
            DatabaseMetaData m = c.getMetaData();
            System.out.println(m.getDatabaseProductName() + " " + m.getDatabaseProductVersion() + " " + m.isReadOnly());
            System.out.println("catalogs " + rows(m.getCatalogs()) + " schemas " + rows(m.getSchemas()) + " types " + rows(m.getTableTypes()));
            Set<String> tables = new TreeSet<>();
            try (ResultSet r = m.getTables(null, "public", "%", new String[] {"TABLE", "VIEW"})) { while (r.next()) tables.add(r.getString("TABLE_NAME") + ":" + r.getString("TABLE_TYPE")); }
            System.out.println("devices:TABLE " + tables.contains("devices:TABLE"));
            try (ResultSet r = m.getColumns(null, "public", "devices", "%")) { while (r.next()) System.out.println(r.getString("COLUMN_NAME") + " " + r.getString("TYPE_NAME") + " " + r.getInt("DATA_TYPE") + " " + r.getString("IS_NULLABLE") + " " + (r.getString("REMARKS") != null)); }
            System.out.println("keys " + rows(m.getPrimaryKeys(null, "public", "devices")) + " imported " + rows(m.getImportedKeys(null, "public", "devices")) + " indexes " + rows(m.getIndexInfo(null, "public", "devices", false, false)));
            System.out.println("types " + (rows(m.getTypeInfo()) > 20) + " functions " + rows(m.getFunctions(null, "public", "%")) + " procedures " + rows(m.getProcedures(null, "public", "%")) + " privileges " + rows(m.getTablePrivileges(null, "public", "devices")) + " udts " + rows(m.getUDTs(null, null, "%", null)) + " columnprivs " + rows(m.getColumnPrivileges(null, "public", "devices", "%")) + " versions " + rows(m.getVersionColumns(null, "public", "devices")) + " best " + rows(m.getBestRowIdentifier(null, "public", "devices", DatabaseMetaData.bestRowSession, true)) + " fn " + m.getStringFunctions().length() + " kw " + m.getSQLKeywords().length() + " name " + m.getMaxTableNameLength() + " idx " + m.getMaxColumnsInIndex() + " iso " + m.getDefaultTransactionIsolation());
            try (PreparedStatement s = c.prepareStatement("select hostname, epoch, last_seen_time, is_available, ip_addresses, metadata from devices where hostname >= ? and epoch > ? order by hostname limit ?")) {
                for (int i = 0; i < 8; i++) {
                    s.setString(1, "h00001"); s.setLong(2, 0); s.setInt(3, 2);
                    try (ResultSet r = s.executeQuery()) { while (r.next()) { if (i == 7) System.out.println(r.getString(1) + " " + (r.getLong(2) > 0) + " " + r.getTimestamp(3).toInstant() + " " + r.getBoolean(4) + " " + Arrays.toString((Object[]) r.getArray(5).getArray()) + " " + r.getString(6)); } }
                }
            }
            c.setAutoCommit(false);
            try (Statement s = c.createStatement()) {
                s.setFetchSize(1000);
                int n = 0;
                try (ResultSet r = s.executeQuery("select hostname from devices")) { while (r.next()) n++; }
                System.out.println("fetched " + n);
            }
            c.commit();
            try (Statement s = c.createStatement()) { s.executeUpdate("delete from devices"); System.out.println("written"); } catch (SQLException e) { System.out.println("refused " + e.getSQLState()); }
            c.rollback();
            c.setAutoCommit(true);
            try (Statement s = c.createStatement()) { s.setQueryTimeout(1); s.executeQuery("select count(*) from devices a, devices b, devices c where a.hostname || b.hostname || c.hostname = 'x'"); System.out.println("done"); } catch (SQLException e) { System.out.println("cancelled " + e.getSQLState()); }
            System.out.println("valid " + c.isValid(5));
        }
    }
}

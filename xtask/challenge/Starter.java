// A zen server that passes the first stage: one client at a time, one question a read. The rest is yours.
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.util.Map;

public class Starter {
    static final Map<String, String> ANSWERS = Map.of(
            "Beautiful is better than?", "ugly.",
            "Explicit is better than?", "implicit.",
            "Simple is better than?", "complex.");

    public static void main(String[] arguments) throws IOException {
        int port = Integer.parseInt(arguments[0]);
        try (ServerSocket listener = new ServerSocket(port, 128, InetAddress.getLoopbackAddress())) {
            while (true) {
                try (var client = listener.accept()) {
                    byte[] bytes = new byte[4096];
                    for (int n; (n = client.getInputStream().read(bytes)) > 0;) {
                        // Latin-1 keeps every byte.
                        String question = new String(bytes, 0, n, StandardCharsets.ISO_8859_1);
                        String answer = ANSWERS.getOrDefault(question, "Error: unknown aphorism.");
                        client.getOutputStream().write(answer.getBytes(StandardCharsets.ISO_8859_1));
                    }
                } catch (IOException gone) {
                    // The next client is waiting.
                }
            }
        }
    }
}

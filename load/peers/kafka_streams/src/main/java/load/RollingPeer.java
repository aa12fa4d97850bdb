package load;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The last 16 readings of every sensor in an in-memory store with a changelog; one record out per record in.
 *
 * <p>Exactly-once, everything else as Kafka Streams comes: commits every 100 ms, a compacted changelog topic.
 */
public final class RollingPeer {
    static final int SAMPLES = 16;
    static final String STORE = "window";

    private RollingPeer() {}

    public static void main(String[] words) throws InterruptedException {
        if (words.length != 6) {
            System.err.println("usage: RollingPeer BOOTSTRAP APPLICATION SOURCE SINK STATE_FOLDER THREADS");
            System.exit(2);
        }
        KafkaStreams streams = new KafkaStreams(topology(words[2], words[3]), settings(words));
        CountDownLatch stopped = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1); // a benchmark that goes on after an error measures something else
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            boolean clean = streams.close(Duration.ofSeconds(30));
            stopped.countDown();
            Runtime.getRuntime().halt(clean ? 0 : 1); // otherwise SIGTERM would end it with status 143
        }));
        streams.start();
        stopped.await();
    }

    static Properties settings(String[] words) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, words[0]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, words[1]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, words[4]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, words[5]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        // It does not leave its group when it stops: as short a session as ours lets the next start begin earlier.
        settings.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG), 10_000);
        return settings;
    }

    static Topology topology(String source, String sink) {
        Topology topology = new Topology();
        topology.addSource("source", Serdes.String().deserializer(), Serdes.ByteArray().deserializer(), source);
        topology.addProcessor("window", Window::new, "source");
        topology.addStateStore(
            Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore(STORE), Serdes.String(), Serdes.ByteArray()),
            "window");
        topology.addSink("sink", sink, Serdes.String().serializer(), Serdes.ByteArray().serializer(), "window");
        return topology;
    }

    /** A key's value: how many readings there were so far, then the last 16 of them, oldest first, and no padding. */
    static final class Window extends ContextualProcessor<String, byte[], String, byte[]> {
        private KeyValueStore<String, byte[]> store;

        @Override
        public void init(ProcessorContext<String, byte[]> context) {
            super.init(context);
            store = context.getStateStore(STORE);
        }

        @Override
        public void process(Record<String, byte[]> record) {
            String event = new String(record.value(), StandardCharsets.UTF_8);
            byte[] ring = appended(store.get(record.key()), number(event, "\"value\":"));
            store.put(record.key(), ring);
            RecordMetadata place = context().recordMetadata().orElseThrow();
            String id = place.topic() + "/" + place.partition() + "/" + place.offset();
            byte[] answer = answer(id, record.key(), number(event, "\"ts\":"), ring);
            context().forward(record.withValue(answer));
        }
    }

    static byte[] appended(byte[] before, double value) {
        int held = before == null ? 0 : before.length / Double.BYTES - 1;
        int dropped = held == SAMPLES ? 1 : 0;
        ByteBuffer ring = ByteBuffer.allocate((held - dropped + 2) * Double.BYTES);
        ring.putLong(before == null ? 1 : ByteBuffer.wrap(before).getLong() + 1);
        if (before != null) {
            ring.put(before, (1 + dropped) * Double.BYTES, (held - dropped) * Double.BYTES);
        }
        return ring.putDouble(value).array();
    }

    /** Six statistics of the ring, as our features; there is no model. */
    static byte[] answer(String id, String key, double time, byte[] ring) {
        ByteBuffer values = ByteBuffer.wrap(ring).position(Double.BYTES).slice();
        int held = values.remaining() / Double.BYTES;
        double sum = 0, low = Double.POSITIVE_INFINITY, high = Double.NEGATIVE_INFINITY, squares = 0;
        for (int i = 0; i < held; i++) {
            double value = values.getDouble(i * Double.BYTES);
            sum += value;
            low = Math.min(low, value);
            high = Math.max(high, value);
        }
        double mean = sum / held;
        for (int i = 0; i < held; i++) {
            double off = values.getDouble(i * Double.BYTES) - mean;
            squares += off * off;
        }
        double last = values.getDouble((held - 1) * Double.BYTES);
        String text = "{\"id\":\"" + id + "\",\"key\":\"" + key + "\",\"time\":" + time + ",\"window_n\":" + held
            + ",\"mean\":" + mean + ",\"std\":" + Math.sqrt(squares / held) + ",\"min\":" + low + ",\"max\":" + high
            + ",\"last\":" + last + ",\"delta\":" + (last - values.getDouble(0)) + "}";
        return text.getBytes(StandardCharsets.UTF_8);
    }

    /** The number after a field's name: the events have one known form, so this is cheaper than a JSON parser. */
    static double number(String event, String field) {
        int start = event.indexOf(field) + field.length();
        int end = start;
        while (end < event.length() && event.charAt(end) != ',' && event.charAt(end) != '}') {
            end++;
        }
        return Double.parseDouble(event.substring(start, end));
    }
}
